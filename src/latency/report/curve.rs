//! A percentile curve: latency over the "nines", the logarithmic axis on which 90 %, 99 % and 99.9 % are equally far apart.

use super::Measured;

/// Points in each nine: a step of 0.06 is smaller than a line is wide.
pub const STEPS: usize = 40;
/// Nines that are ever drawn: one event in a hundred million.
const MOST_NINES: f64 = 8.0;

/// The share of events, 0 to 1, at this number of nines: 1 → 0.9, 2 → 0.99.
pub fn share(nines: f64) -> f64 {
    1.0 - 10_f64.powf(-nines)
}

/// The number of nines for which there are enough samples: one in N is the last.
pub fn nines(samples: u64) -> f64 {
    (samples.max(1) as f64).log10().min(MOST_NINES)
}

/// The latency, in nanoseconds, at each step of the axis that there are samples for.
pub fn curve(stage: &Measured) -> Vec<(f64, u64)> {
    let steps = (nines(stage.samples) * STEPS as f64).floor() as usize;
    let axis = (0..=steps).map(|step| step as f64 / STEPS as f64);
    let values = stage.histogram.value_at_quantiles(axis.clone().map(share).collect::<Vec<_>>());
    axis.zip(values).collect()
}

/// The name of a whole number of nines: 0, 90 %, 99 %, 99.9 %.
pub fn name(nines: usize) -> String {
    match nines {
        0 => "0 %".into(),
        1 => "90 %".into(),
        2 => "99 %".into(),
        _ => format!("99.{} %", "9".repeat(nines - 2)),
    }
}
