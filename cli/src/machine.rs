//! The description of this machine.

use std::fs;
use std::path::Path;

use softmax_report::schema::{Cache, Machine};
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

use crate::threads;

/// The CPU's own name for itself.
#[cfg(target_arch = "x86_64")]
pub fn cpu() -> String {
    let brand = raw_cpuid::CpuId::new().get_processor_brand_string();
    brand.map_or("unknown".into(), |brand| brand.as_str().trim().to_owned())
}

/// The system's name for the CPU.
#[cfg(not(target_arch = "x86_64"))]
pub fn cpu() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    let name = fields.find(|(key, _)| ["model name", "Model", "uarch"].contains(&key.trim()));
    name.map_or("unknown".into(), |(_, name)| name.trim().to_owned())
}

/// The caches as Linux lists them, the nearest first; none elsewhere.
pub fn caches() -> Vec<Cache> {
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

/// The whole description. The numbers of an emulated CPU are those of its host.
pub fn machine(label: Option<String>, emulated: bool, pinned: bool) -> Machine {
    let refresh = RefreshKind::nothing()
        .with_cpu(CpuRefreshKind::nothing().with_frequency())
        .with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(refresh).ok();
    let cpu = cpu();
    let available = softmax::kernels().iter().filter(|kernel| kernel.is_available());
    let mut features: Vec<_> =
        available.flat_map(|kernel| kernel.requires()).map(|&feature| feature.to_owned()).collect();
    features.sort();
    features.dedup();
    let frequency = system.iter().flat_map(System::cpus).map(|cpu| cpu.frequency()).max();
    let os = [System::long_os_version(), System::kernel_long_version()];
    Machine {
        label: label.unwrap_or_else(|| cpu.clone()),
        cpu,
        architecture: std::env::consts::ARCH.to_owned(),
        features,
        emulated,
        physical_cores: System::physical_core_count().ok(),
        logical_cores: threads::available(),
        caches: caches(),
        memory_bytes: system.as_ref().map_or(0, System::total_memory),
        frequency_mhz: frequency.filter(|&mhz| mhz > 0),
        os: os.into_iter().flatten().collect::<Vec<_>>().join(", "),
        on_battery: on_battery(Path::new("/sys/class/power_supply")),
        pinned,
    }
}

/// Whether a battery of the machine is discharging, as Linux tells; `None` if there is none.
fn on_battery(supplies: &Path) -> Option<bool> {
    let states = fs::read_dir(supplies).ok()?.flatten().filter_map(|supply| {
        let read = |name| fs::read_to_string(supply.path().join(name));
        // Batteries of devices such as mice do not count.
        let device = read("scope").is_ok_and(|scope| scope.trim() == "Device");
        let battery = !device && read("type").ok()?.trim() == "Battery";
        battery.then(|| read("status").is_ok_and(|status| status.trim() == "Discharging"))
    });
    states.reduce(|a, b| a || b)
}

/// Whether an emulator runs this program, as far as can be told from the CPU's description.
#[cfg(target_arch = "x86_64")]
pub fn is_emulated() -> bool {
    let cpu = raw_cpuid::CpuId::new();
    cpu.get_hypervisor_info()
        .is_some_and(|hypervisor| hypervisor.identify() == raw_cpuid::Hypervisor::QEMU)
        || cpu.get_processor_brand_string().is_some_and(|brand| brand.as_str().contains("QEMU"))
        || is_other_architecture("CPU implementer")
}

/// Whether an emulator runs this program, as far as can be told from the CPU's description.
#[cfg(not(target_arch = "x86_64"))]
pub fn is_emulated() -> bool {
    is_other_architecture("vendor_id")
}

/// Whether Linux describes the CPU with a key of the other architecture.
fn is_other_architecture(key: &str) -> bool {
    fs::read_to_string("/proc/cpuinfo")
        .is_ok_and(|text| text.lines().any(|line| line.starts_with(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batteries_of_the_machine_count() {
        let folder = tempfile::tempdir().expect("a folder");
        let supply = |name: &str, files: &[(&str, &str)]| {
            let supply = folder.path().join(name);
            fs::create_dir_all(&supply).expect("a folder");
            for (file, text) in files {
                fs::write(supply.join(file), format!("{text}\n")).expect("a file");
            }
        };
        assert_eq!(on_battery(&folder.path().join("none")), None);
        supply("AC", &[("type", "Mains")]);
        supply("mouse", &[("type", "Battery"), ("scope", "Device"), ("status", "Discharging")]);
        assert_eq!(on_battery(folder.path()), None);
        supply("BAT0", &[("type", "Battery"), ("status", "Charging")]);
        assert_eq!(on_battery(folder.path()), Some(false));
        supply("BAT1", &[("type", "Battery"), ("scope", "System"), ("status", "Discharging")]);
        assert_eq!(on_battery(folder.path()), Some(true));
    }
}
