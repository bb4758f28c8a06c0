//! Registers metrics and writes down what was registered, so that `docs/metrics.md` cannot say anything else.

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::{Metric, Registry, Unit};
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock};

/// One label and its value.
pub type Label = [(&'static str, String); 1];
/// A gauge of seconds.
pub type Seconds = Gauge<f64, AtomicU64>;

/// One line of `docs/metrics.md`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The name as it is scraped.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// `seconds`, `bytes` or empty: a count.
    pub unit: &'static str,
    /// Labels and the values they can have.
    pub labels: String,
    /// What it means.
    pub meaning: &'static str,
}

/// A registry in the making.
#[derive(Debug, Default)]
pub struct Table {
    registry: Registry,
    rows: Vec<Row>,
}

impl Table {
    /// A counter without labels. `name` is what stands between `tripline_` and `_total`.
    pub fn counter(&mut self, name: &'static str, meaning: &'static str) -> Counter {
        let counter = Counter::default();
        self.add(name, Form::Counter, None, String::new(), meaning, counter.clone());
        counter
    }

    /// A counter of bytes.
    pub fn byte_counter(&mut self, name: &'static str, meaning: &'static str) -> Counter {
        let counter = Counter::default();
        self.add(name, Form::Counter, Some(Unit::Bytes), String::new(), meaning, counter.clone());
        counter
    }

    /// One counter per value of a label, in the order of `values`. All of them are there from the start, at 0.
    pub fn counters<const N: usize>(
        &mut self,
        name: &'static str,
        label: &'static str,
        values: [&str; N],
        meaning: &'static str,
    ) -> [Counter; N] {
        let family = Family::<Label, Counter>::default();
        let handles = values.map(|value| family.get_or_create_owned(&[(label, value.to_owned())]));
        self.add(name, Form::Counter, None, one_of(label, &values), meaning, family);
        handles
    }

    /// One counter per pair of values of two labels.
    pub fn counters2<const N: usize, const M: usize>(
        &mut self,
        name: &'static str,
        labels: [&'static str; 2],
        first: [&str; N],
        second: [&str; M],
        meaning: &'static str,
    ) -> [[Counter; M]; N] {
        let family = Family::<[(&'static str, String); 2], Counter>::default();
        let handles = first.map(|a| second.map(|b| family.get_or_create_owned(&[(labels[0], a.to_owned()), (labels[1], b.to_owned())])));
        let text = format!("{}; {}", one_of(labels[0], &first), one_of(labels[1], &second));
        self.add(name, Form::Counter, None, text, meaning, family);
        handles
    }

    /// Counters by a label whose values are known later; `values` says where they come from and what bounds them.
    pub fn counter_family(
        &mut self,
        name: &'static str,
        label: &'static str,
        values: &str,
        meaning: &'static str,
    ) -> Family<Label, Counter> {
        let family = Family::<Label, Counter>::default();
        self.add(name, Form::Counter, None, format!("`{label}`: {values}"), meaning, family.clone());
        family
    }

    /// A gauge without labels.
    pub fn gauge(&mut self, name: &'static str, meaning: &'static str) -> Gauge {
        let gauge = Gauge::default();
        self.add(name, Form::Gauge, None, String::new(), meaning, gauge.clone());
        gauge
    }

    /// A gauge of seconds.
    pub fn seconds_gauge(&mut self, name: &'static str, meaning: &'static str) -> Seconds {
        let gauge = Seconds::default();
        self.add(name, Form::Gauge, Some(Unit::Seconds), String::new(), meaning, gauge.clone());
        gauge
    }

    /// Gauges by lane, and by a second label where `extra` names one.
    pub fn lane_gauges<M: Metric + Clone + Default + TypedMetric>(
        &mut self,
        name: &'static str,
        unit: Option<Unit>,
        extra: &str,
        meaning: &'static str,
    ) -> Family<Vec<(&'static str, String)>, M> {
        let family = Family::<Vec<(&'static str, String)>, M>::default();
        let labels = format!("`lane`: number of the lane{}{extra}", if extra.is_empty() { "" } else { "; " });
        self.add(name, Form::Gauge, unit, labels, meaning, family.clone());
        family
    }

    /// A histogram, of seconds or of a count.
    pub fn histogram(&mut self, name: &'static str, unit: Option<Unit>, buckets: &[f64], meaning: &'static str) -> Histogram {
        let histogram = Histogram::new(buckets.iter().copied());
        self.add(name, Form::Histogram, unit, String::new(), meaning, histogram.clone());
        histogram
    }

    /// A gauge that is always 1 and has one label whose value says which one is in use.
    pub fn info(&mut self, name: &'static str, label: &'static str, values: &str, meaning: &'static str) -> Current {
        let current = Current { label, value: Arc::default() };
        self.add(name, Form::Gauge, None, format!("`{label}`: {values}"), meaning, current.clone());
        current
    }

    /// What can be scraped, and the rows of the reference.
    pub fn finish(self) -> (Registry, Vec<Row>) {
        (self.registry, self.rows)
    }

    fn add(&mut self, name: &str, form: Form, unit: Option<Unit>, labels: String, meaning: &'static str, metric: impl Metric) {
        let unit_name = match &unit {
            Some(Unit::Seconds) => "seconds",
            Some(Unit::Bytes) => "bytes",
            _ => "",
        };
        let unit_suffix = if unit_name.is_empty() { String::new() } else { format!("_{unit_name}") };
        let (kind, suffix) = match form {
            Form::Counter => ("counter", "_total"),
            Form::Gauge => ("gauge", ""),
            Form::Histogram => ("histogram", ""),
        };
        self.rows.push(Row { name: format!("tripline_{name}{unit_suffix}{suffix}"), kind, unit: unit_name, labels, meaning });
        let name = format!("tripline_{name}");
        // The exposition puts the full stop itself.
        let help = meaning.trim_end_matches('.');
        match unit {
            Some(unit) => self.registry.register_with_unit(name, help, unit, metric),
            None => self.registry.register(name, help, metric),
        }
    }
}

enum Form {
    Counter,
    Gauge,
    Histogram,
}

fn one_of(label: &str, values: &[&str]) -> String {
    let values: Vec<_> = values.iter().map(|value| format!("`{value}`")).collect();
    format!("`{label}`: {}", values.join(", "))
}

/// A gauge that is always 1, with a label that says which one is in use: the old value goes when a new one comes.
#[derive(Debug, Clone)]
pub struct Current {
    label: &'static str,
    value: Arc<RwLock<String>>,
}

impl Current {
    /// From now on it is `value`.
    pub fn set(&self, value: &str) {
        value.clone_into(&mut self.value.write().unwrap_or_else(PoisonError::into_inner));
    }
}

impl EncodeMetric for Current {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let value = self.value.read().unwrap_or_else(PoisonError::into_inner).clone();
        // Nothing is in use yet: no line at all.
        if value.is_empty() {
            return Ok(());
        }
        let labels = [(self.label, value)];
        encode_one(encoder.encode_family(&labels)?)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

fn encode_one(mut encoder: MetricEncoder<'_>) -> fmt::Result {
    encoder.encode_gauge(&1_i64)
}
