//! `softmax info`: what this machine and this build are.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use softmax::Kernel;

use crate::failure::Failure;
use crate::stdout;

/// Shows the CPU, its caches, the kernels and the build.
#[derive(Debug, clap::Args)]
pub struct Info {
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

impl Info {
    /// Prints it all, and says what is wrong with the environment, if anything.
    pub fn run(&self) -> Result<(), Failure> {
        let default = softmax::default_kernel();
        let chosen = default.as_ref().ok().map(|k| k.name());
        let lines = if self.json { vec![self::json(chosen).to_string()] } else { text(chosen) };
        stdout::print(&lines)?;
        default.map(drop).map_err(|e| Failure::new("SOFTMAX_KERNEL", e))
    }
}

fn json(chosen: Option<&str>) -> Value {
    let cache = |c: &Cache| json!({ "level": c.level, "type": c.kind, "size": c.size });
    let kernel = |k: &Kernel| {
        json!({
            "name": k.name(),
            "requires": k.requires(),
            "available": k.is_available(),
            "chosen": chosen == Some(k.name()),
        })
    };
    let build = softmax::build();
    json!({
        "cpu": cpu(),
        "architecture": std::env::consts::ARCH,
        "caches": caches().iter().map(cache).collect::<Vec<_>>(),
        "threads": threads(),
        "kernels": softmax::kernels().iter().map(kernel).collect::<Vec<_>>(),
        "build": {
            "version": build.version,
            "rustc": build.rustc,
            "target": build.target,
            "revision": build.revision,
        },
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
    let build = softmax::build();
    let mut lines = vec![
        format!("cpu      {}", cpu()),
        format!("arch     {}", std::env::consts::ARCH),
        format!("caches   {caches}"),
        format!("threads  {}", threads()),
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

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// The CPU's own name for itself.
#[cfg(target_arch = "x86_64")]
fn cpu() -> String {
    let brand = raw_cpuid::CpuId::new().get_processor_brand_string();
    brand.map_or("unknown".into(), |brand| brand.as_str().trim().to_owned())
}

/// The system's name for the CPU.
#[cfg(not(target_arch = "x86_64"))]
fn cpu() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    let name = fields.find(|(key, _)| ["model name", "Model", "uarch"].contains(&key.trim()));
    name.map_or("unknown".into(), |(_, name)| name.trim().to_owned())
}

/// A cache of the first CPU.
struct Cache {
    level: u32,
    /// `Data`, `Instruction` or `Unified`.
    kind: String,
    /// Bytes.
    size: u64,
}

/// The caches as Linux lists them, the nearest first; none elsewhere.
fn caches() -> Vec<Cache> {
    let cache = |folder: &Path| {
        let read = |name| fs::read_to_string(folder.join(name)).ok().map(|s| s.trim().to_owned());
        let size = read("size")?;
        let (number, unit) = size.split_at(size.find(char::is_alphabetic).unwrap_or(size.len()));
        let unit = match unit {
            "K" => 10,
            "M" => 20,
            _ => 0,
        };
        let size = number.parse::<u64>().ok()? << unit;
        Some(Cache { level: read("level")?.parse().ok()?, kind: read("type")?, size })
    };
    let folder = Path::new("/sys/devices/system/cpu/cpu0/cache");
    let mut caches: Vec<_> =
        (0..).map_while(|i| cache(&folder.join(format!("index{i}")))).collect();
    caches.sort_by(|a, b| (a.level, &a.kind).cmp(&(b.level, &b.kind)));
    caches
}
