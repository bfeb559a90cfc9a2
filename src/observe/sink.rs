//! Where figures go: to the recorder of the `metrics` crate, or nowhere.

use std::{borrow::Cow, time::Duration};

use super::figures::Figure;

/// The value of a label.
pub(super) type Label = Cow<'static, str>;

pub(crate) use on_or_off::{ENABLED, describe};
pub(super) use on_or_off::{add, set, time};

#[cfg(feature = "metrics")]
mod on_or_off {
    use metrics::Unit;

    use super::{Duration, Figure, Label};
    use crate::observe::figures::{ALL, Kind};

    /// Whether anything is measured at all.
    pub(crate) const ENABLED: bool = true;

    /// Tells the recorder what there is: once it is installed.
    pub(crate) fn describe() {
        for figure in ALL {
            let unit = match figure.name {
                name if name.ends_with("_seconds") => Unit::Seconds,
                name if name.contains("_bytes") => Unit::Bytes,
                _ => Unit::Count,
            };
            match figure.kind {
                Kind::Counter => metrics::describe_counter!(figure.name, unit, figure.help),
                Kind::Gauge => metrics::describe_gauge!(figure.name, unit, figure.help),
                Kind::Histogram => metrics::describe_histogram!(figure.name, unit, figure.help),
            }
        }
    }

    fn labels(figure: &Figure, values: &[Label]) -> Vec<metrics::Label> {
        debug_assert_eq!(figure.labels.len(), values.len(), "{}", figure.name);
        let pairs = figure.labels.iter().zip(values);
        pairs
            .map(|(name, value)| metrics::Label::new(*name, value.clone()))
            .collect()
    }

    pub(in crate::observe) fn add(figure: &'static Figure, values: &[Label], number: u64) {
        metrics::counter!(figure.name, labels(figure, values)).increment(number);
    }

    #[allow(clippy::cast_precision_loss, reason = "gauges are floating-point numbers")]
    pub(in crate::observe) fn set(figure: &'static Figure, values: &[Label], number: u64) {
        metrics::gauge!(figure.name, labels(figure, values)).set(number as f64);
    }

    pub(in crate::observe) fn time(figure: &'static Figure, values: &[Label], time: Duration) {
        metrics::histogram!(figure.name, labels(figure, values)).record(time.as_secs_f64());
    }
}

#[cfg(not(feature = "metrics"))]
mod on_or_off {
    use super::{Duration, Figure, Label};

    pub(crate) const ENABLED: bool = false;

    pub(crate) const fn describe() {}

    pub(in crate::observe) const fn add(_: &'static Figure, _: &[Label], _: u64) {}

    pub(in crate::observe) const fn set(_: &'static Figure, _: &[Label], _: u64) {}

    pub(in crate::observe) const fn time(_: &'static Figure, _: &[Label], _: Duration) {}
}
