//! `softmax info`: this machine and this build.

use serde_json::{Value, json};
use softmax::Kernel;

use crate::failure::Failure;
use crate::machine::{caches, cpu};
use crate::threads::available;
use crate::{environment, stdout};
use softmax_report::schema::{Build, Cache};

/// Shows the CPU, its caches, the kernels and the build.
#[derive(Debug, clap::Args)]
pub struct Info {
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

impl Info {
    /// Prints everything, and what is wrong with the environment, if anything.
    pub fn run(&self) -> Result<(), Failure> {
        let chosen = softmax::default_kernel().ok().map(|k| k.name());
        if self.json {
            stdout::print_json(&json(chosen))?;
        } else {
            stdout::print(&text(chosen))?;
        }
        environment()
    }
}

/// The build of this program.
pub fn build() -> Build {
    Build {
        version: env!("CARGO_PKG_VERSION").into(),
        revision: env!("SOFTMAX_BUILD_REVISION").into(),
        rustc: env!("SOFTMAX_BUILD_RUSTC").into(),
        target: env!("SOFTMAX_BUILD_TARGET").into(),
    }
}

fn json(chosen: Option<&str>) -> Value {
    let kernel = |k: &Kernel| {
        json!({
            "name": k.name(),
            "requires": k.requires(),
            "available": k.is_available(),
            "chosen": chosen == Some(k.name()),
        })
    };
    json!({
        "cpu": cpu(),
        "architecture": std::env::consts::ARCH,
        "caches": caches(),
        "threads": available(),
        "kernels": softmax::kernels().iter().map(kernel).collect::<Vec<_>>(),
        "build": build(),
    })
}

fn text(chosen: Option<&str>) -> Vec<String> {
    let cache = |c: &Cache| {
        let size = match c.size {
            size if size % (1 << 20) == 0 => format!("{} MiB", size >> 20),
            size => format!("{} KiB", size >> 10),
        };
        format!("L{} {} {size}", c.level, c.kind.to_lowercase())
    };
    let caches: Vec<_> = caches().iter().map(cache).collect();
    let caches = if caches.is_empty() { "unknown".into() } else { caches.join(", ") };
    let build = build();
    let mut lines = vec![
        format!("cpu      {}", cpu()),
        format!("arch     {}", std::env::consts::ARCH),
        format!("caches   {caches}"),
        format!("threads  {}", available()),
        format!("build    softmax {}, revision {}", build.version, build.revision),
        format!("         {}, {}", build.rustc, build.target),
        "kernels".into(),
    ];
    for k in softmax::kernels() {
        let state = match (k.is_available(), chosen == Some(k.name())) {
            (_, true) => "chosen",
            (true, _) => "available",
            (false, _) => "unavailable",
        };
        let needs =
            if k.requires().is_empty() { "nothing".into() } else { k.requires().join(", ") };
        lines.push(format!("  {:<9} {state:<12} needs {needs}", k.name()));
    }
    lines
}
