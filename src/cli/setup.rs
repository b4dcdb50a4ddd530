//! The options of `setup`.

use super::{ClickHouseArgs, KafkaArgs};
use clap::Args;

#[derive(Args, Debug)]
pub struct SetupArgs {
    #[command(flatten)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    pub clickhouse: ClickHouseArgs,

    /// Partitions of a topic that is made
    #[arg(long, env = "CLICKSTREAM_PARTITIONS", default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..=10_000))]
    pub partitions: i32,
}
