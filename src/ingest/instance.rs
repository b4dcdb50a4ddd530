//! The name that the member has in its group, from one start to the next.

use super::{IngestConfig, Instance};
use crate::kafka::consumer::static_membership::InstanceFile;
use anyhow::Result;

/// The name to be known by in the group. Where there is no place to keep one, the member has none, and a restart takes longer.
///
/// # Errors
/// When the directory that was named cannot keep it, or another process has that name.
pub fn acquire(config: &IngestConfig) -> Result<Option<InstanceFile>> {
    let of = [&*config.kafka.brokers, &config.kafka.topic, &config.group];
    let directory = config.state_dir.as_deref();
    match &config.instance {
        Instance::None => Ok(None),
        Instance::Named(name) => InstanceFile::acquire_named(directory, name, &of).map(Some),
        Instance::Kept if directory.is_some() => InstanceFile::acquire(directory, &of).map(Some),
        Instance::Kept => Ok(InstanceFile::acquire(None, &of).map_or_else(
            |why| {
                tracing::warn!(
                    "{why:#}. So this member has no name in its group: after a crash its partitions wait for the session timeout. \
                     Nothing is lost. --state-dir names a directory for it; --instance-id none goes without a name, and without \
                     this line"
                );
                None
            },
            Some,
        )),
    }
}
