//! The body of a remote write request: protobuf `WriteRequest`, compressed as one Snappy block.
//!
//! Prometheus remote write 1.0: `WriteRequest{timeseries=1}`, `TimeSeries{labels=1, samples=2}`,
//! `Label{name=1, value=2}`, `Sample{value=1 double, timestamp=2 int64}`. The labels of a series
//! never change, so that they are encoded once.

use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint},
};

/// The value that ends a series at once, instead of five minutes later: a NaN of its own.
pub(super) const STALE: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

/// One value of one series.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) series: u32,
    /// Milliseconds since 1970.
    pub(super) ms: i64,
    pub(super) value: f64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Label {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Labels {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
}

#[derive(Clone, PartialEq, Message)]
struct Samples {
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Sample {
    #[prost(double, tag = "1")]
    pub(super) value: f64,
    #[prost(int64, tag = "2")]
    pub(super) timestamp: i64,
}

/// Labels as they stand in a `TimeSeries`: sorted by name, as the receiver demands, and without
/// empty ones, which mean the same as none.
pub(super) fn encode_labels(labels: Vec<(String, String)>) -> Vec<u8> {
    let mut labels: Vec<Label> = labels
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| Label { name, value })
        .collect();
    labels.sort_by(|a, b| a.name.cmp(&b.name));
    Labels { labels }.encode_to_vec()
}

/// A request of these rows, which are sorted by series and time.
///
/// # Errors
/// It is larger than Snappy can compress (4 GiB).
pub(super) fn encode<'a>(
    rows: &[Row],
    labels_of: impl Fn(u32) -> &'a [u8],
) -> Result<Vec<u8>, snap::Error> {
    let mut body = Vec::with_capacity(rows.len() * 128);
    for of_series in rows.chunk_by(|a, b| a.series == b.series) {
        let Some(first) = of_series.first() else { continue };
        let labels = labels_of(first.series);
        let sample = |row: &Row| Sample { value: row.value, timestamp: row.ms };
        let samples = Samples { samples: of_series.iter().map(sample).collect() };
        encode_key(1, WireType::LengthDelimited, &mut body);
        encode_varint((labels.len() + samples.encoded_len()) as u64, &mut body);
        body.extend_from_slice(labels);
        body.extend_from_slice(&samples.encode_to_vec());
    }
    snap::raw::Encoder::new().compress_vec(&body)
}

/// What a receiver reads.
#[cfg(test)]
pub(super) mod decoded {
    use prost::Message;

    use super::{Label, Sample};

    #[derive(Clone, PartialEq, Message)]
    pub(in super::super) struct WriteRequest {
        #[prost(message, repeated, tag = "1")]
        pub(in super::super) timeseries: Vec<TimeSeries>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(in super::super) struct TimeSeries {
        #[prost(message, repeated, tag = "1")]
        pub(in super::super) labels: Vec<Label>,
        #[prost(message, repeated, tag = "2")]
        pub(in super::super) samples: Vec<Sample>,
    }

    pub(in super::super) fn decode(body: &[u8]) -> WriteRequest {
        let plain = snap::raw::Decoder::new().decompress_vec(body).unwrap();
        WriteRequest::decode(plain.as_slice()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_what_its_specification_says() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let labels = [
            encode_labels(vec![pair("node", "n1"), pair("__name__", "a_total"), pair("job", "")]),
            encode_labels(vec![pair("__name__", "b")]),
        ];
        let row = |series, ms, value| Row { series, ms, value };
        let rows = [row(0, 1_000, 1.5), row(0, 2_000, 0.0), row(1, 1_000, STALE)];
        let body = encode(&rows, |series| &labels[series as usize]).unwrap();
        let series = decoded::decode(&body).timeseries;
        let names: Vec<Vec<&str>> = series
            .iter()
            .map(|one| one.labels.iter().map(|label| label.name.as_str()).collect())
            .collect();
        assert_eq!(names, [vec!["__name__", "node"], vec!["__name__"]]);
        assert_eq!(series[0].samples.len(), 2);
        assert_eq!((series[0].samples[1].value, series[0].samples[1].timestamp), (0.0, 2_000));
        assert_eq!(series[1].samples[0].value.to_bits(), 0x7ff0_0000_0000_0002);
    }
}
