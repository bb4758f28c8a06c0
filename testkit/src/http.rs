//! Just enough HTTP to ask a worker's admin endpoint, and to read the numbers of its `/metrics`.

use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(2);

/// The answer to a GET: status and body.
pub fn get(address: &str, path: &str) -> Result<(u16, String)> {
    let socket = address.to_socket_addrs()?.next().with_context(|| format!("{address} has no address"))?;
    let stream = TcpStream::connect_timeout(&socket, TIMEOUT).with_context(|| format!("could not connect to {address}"))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    exchange(stream, address, path)
}

/// Sends the request over any stream. HTTP/1.0: the body ends with the connection, and comes in one piece.
pub(crate) fn exchange(mut stream: impl Read + Write, host: &str, path: &str) -> Result<(u16, String)> {
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { bail!("{host} sent no complete answer to GET {path}") };
    let status = head.split_whitespace().nth(1).and_then(|s| s.parse().ok()).with_context(|| format!("{host} does not speak HTTP"))?;
    Ok((status, body.to_owned()))
}

/// The samples of one scrape, in Prometheus' text format.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics {
    samples: Vec<Sample>,
}

#[derive(Debug, Clone, PartialEq)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Metrics {
    /// Scrapes `http://ADDRESS/metrics`.
    pub fn scrape(address: &str) -> Result<Metrics> {
        let (status, body) = get(address, "/metrics")?;
        if status != 200 {
            bail!("GET /metrics on {address} answered {status}");
        }
        Ok(Metrics::parse(&body))
    }

    /// Reads the text format; lines that are no samples are left out.
    pub fn parse(text: &str) -> Metrics {
        Metrics { samples: text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect() }
    }

    /// Sum of the samples of this name that carry all these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.named(name).filter(|sample| labels.iter().all(|(key, value)| sample.label(key) == Some(value))).map(|s| s.value).sum()
    }

    /// Sums by one label's value, in the order of the values.
    pub fn by_label(&self, name: &str, label: &str) -> std::collections::BTreeMap<String, f64> {
        let mut sums = std::collections::BTreeMap::new();
        for sample in self.named(name) {
            *sums.entry(sample.label(label).unwrap_or_default().to_owned()).or_default() += sample.value;
        }
        sums
    }

    /// A quantile of a histogram: the upper bound of the bucket that holds it. `None` when nothing was observed.
    pub fn quantile(&self, histogram: &str, quantile: f64) -> Option<f64> {
        let buckets = self.by_label(&format!("{histogram}_bucket"), "le");
        let mut buckets: Vec<(f64, f64)> =
            buckets.into_iter().filter_map(|(le, count)| Some((le.replace("+Inf", "inf").parse().ok()?, count))).collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let total = buckets.last().map(|(_, count)| *count).filter(|count| *count > 0.0)?;
        buckets.into_iter().find(|(_, count)| *count >= total * quantile).map(|(bound, _)| bound)
    }

    /// What was added since an earlier scrape of the same process: for counters and histograms.
    pub fn since(&self, earlier: &Metrics) -> Metrics {
        let before = |sample: &Sample| earlier.samples.iter().find(|s| s.name == sample.name && s.labels == sample.labels);
        let added = |sample: &Sample| Sample { value: sample.value - before(sample).map_or(0.0, |s| s.value), ..sample.clone() };
        Metrics { samples: self.samples.iter().map(added).collect() }
    }

    fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| sample.name == name)
    }
}

impl Sample {
    fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
}

/// `name{a="b",c="d"} 1.5`. Label values with escaped quotes do not occur in ours: labels come from small closed sets.
fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.trim().rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        None => (series, ""),
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
    };
    let labels = labels
        .split("\",")
        .filter_map(|pair| pair.split_once("=\""))
        .map(|(key, value)| (key.to_owned(), value.trim_end_matches('"').to_owned()))
        .collect();
    Some(Sample { name: name.to_owned(), labels, value: value.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP a_total Text.\n# TYPE a_total counter\na_total{outcome=\"late\",lane=\"0\"} 3\na_total{outcome=\"late\",lane=\"1\"} 4\n\
                        a_total{outcome=\"processed\",lane=\"0\"} 90\nup 1\nh_bucket{le=\"0.05\"} 60\nh_bucket{le=\"0.1\"} 99\nh_bucket{le=\"+Inf\"} 100\n# EOF\n";

    #[test]
    fn samples_add_up_by_label() {
        let metrics = Metrics::parse(TEXT);
        assert_eq!(metrics.sum("a_total", &[]), 97.0);
        assert_eq!(metrics.sum("a_total", &[("outcome", "late")]), 7.0);
        assert_eq!(metrics.sum("a_total", &[("outcome", "late"), ("lane", "1")]), 4.0);
        assert_eq!(metrics.sum("up", &[]), 1.0);
        assert_eq!(metrics.sum("absent", &[]), 0.0);
        assert_eq!(
            metrics.by_label("a_total", "outcome").into_iter().collect::<Vec<_>>(),
            [("late".into(), 7.0), ("processed".into(), 90.0)]
        );
    }

    #[test]
    fn quantile_is_the_bound_of_its_bucket() {
        let metrics = Metrics::parse(TEXT);
        assert_eq!(metrics.quantile("h", 0.5), Some(0.05));
        assert_eq!(metrics.quantile("h", 0.99), Some(0.1));
        assert_eq!(metrics.quantile("h", 1.0), Some(f64::INFINITY));
        assert_eq!(metrics.quantile("absent", 0.5), None);
    }

    #[test]
    fn what_was_added_since_has_quantiles_of_its_own() {
        let later = Metrics::parse("h_bucket{le=\"0.05\"} 61\nh_bucket{le=\"0.1\"} 109\nh_bucket{le=\"+Inf\"} 110\nnew_total 4\n");
        let added = later.since(&Metrics::parse(TEXT));
        assert_eq!((added.quantile("h", 0.1), added.quantile("h", 0.5)), (Some(0.05), Some(0.1)));
        assert_eq!(added.sum("new_total", &[]), 4.0);
    }

    #[test]
    fn an_answer_is_split_into_status_and_body() {
        struct Canned(std::io::Cursor<Vec<u8>>);
        impl Read for Canned {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                self.0.read(buffer)
            }
        }
        impl Write for Canned {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let canned = |text: &str| Canned(std::io::Cursor::new(text.as_bytes().to_vec()));
        assert_eq!(exchange(canned("HTTP/1.0 503 No\r\nA: b\r\n\r\nnot ready"), "h", "/readyz").unwrap(), (503, "not ready".into()));
        assert!(exchange(canned("garbage\r\n\r\n"), "h", "/").is_err());
        assert!(exchange(canned("HTTP/1.0 200 OK\r\n"), "h", "/").is_err());
    }
}
