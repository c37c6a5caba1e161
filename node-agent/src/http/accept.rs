//! What a client accepts: `Accept` and its kin (RFC 9110, 12.4.2 and 12.5).

/// One of the choices of a header.
#[derive(Debug)]
pub(crate) struct Choice<'a> {
    /// A media type or a coding, as written.
    pub(crate) name: &'a str,
    /// How much it is liked, from 0 (not at all) to 1.
    pub(crate) quality: f64,
    parameters: &'a str,
}

impl<'a> Choice<'a> {
    /// The value of a parameter such as `version`, without its quotes.
    pub(crate) fn parameter(&self, name: &str) -> Option<&'a str> {
        parameter(self.parameters, name).map(|value| value.trim_matches('"'))
    }
}

/// The choices of a header, in its order. A quality that is no number counts as 0.
pub(crate) fn choices(header: &str) -> impl Iterator<Item = Choice<'_>> {
    header.split(',').map(|choice| {
        let (name, parameters) = choice.split_once(';').unwrap_or((choice, ""));
        let quality = parameter(parameters, "q").map_or(1.0, |q| q.parse().unwrap_or(0.0));
        Choice { name: name.trim(), quality, parameters }
    })
}

fn parameter<'a>(parameters: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = parameters.split(';').filter_map(|part| part.split_once('='));
    pairs.find_map(|(key, value)| key.trim().eq_ignore_ascii_case(name).then(|| value.trim()))
}
