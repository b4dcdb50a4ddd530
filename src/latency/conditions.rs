//! The conditions of a run, which make its latencies comparable: settings, versions, machine.

use super::log::Conditions;
use std::num::NonZero;

/// The conditions of a command with these settings, on this machine.
pub fn of(command: &str, settings: &[(&str, String)]) -> Conditions {
    let mut conditions = vec![("command".to_owned(), command.to_owned())];
    conditions.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    conditions.push(("clickstream".into(), env!("CARGO_PKG_VERSION").into()));
    conditions.push(("librdkafka".into(), rdkafka::util::get_rdkafka_version().1));
    // Linux has it there, also in a container.
    if let Ok(host) = std::fs::read_to_string("/proc/sys/kernel/hostname") {
        conditions.push(("host".into(), host.trim().to_owned()));
    }
    if let Ok(cores) = std::thread::available_parallelism().map(NonZero::get) {
        conditions.push(("cores".into(), cores.to_string()));
    }
    conditions
}
