//! Status and header fields of an answer, as any engine gives them.

use hyper::HeaderMap;

/// Header fields (or trailers) of an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fields<'a> {
    /// Of an engine that keeps them in a map.
    Map(&'a HeaderMap),
    /// Of an engine that keeps them where they were read.
    List(&'a [httparse::Header<'a>]),
}

impl<'a> Fields<'a> {
    /// The first value of a field; names are compared without case.
    pub(crate) fn get(self, name: &str) -> Option<&'a [u8]> {
        match self {
            Self::Map(map) => map.get(name).map(hyper::header::HeaderValue::as_bytes),
            Self::List(list) => {
                let found = list.iter().find(|field| field.name.eq_ignore_ascii_case(name));
                found.map(|field| field.value)
            }
        }
    }

    /// The first value of a field, if it is text.
    pub(crate) fn text(self, name: &str) -> Option<&'a str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }
}

/// Status and headers of an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head<'a> {
    /// Status code.
    pub(crate) status: u16,
    /// Header fields.
    pub(crate) fields: Fields<'a>,
}

impl Head<'_> {
    /// The content type without its parameters, in lower case.
    pub(crate) fn content_type(&self) -> Option<String> {
        let kind = self.fields.text("content-type")?;
        let kind = kind.split(';').next().unwrap_or(kind);
        Some(kind.trim().to_ascii_lowercase())
    }

    /// Whether the content type is `expected`, or absent.
    pub(crate) fn is(&self, expected: &str) -> bool {
        let Some(kind) = self.fields.text("content-type") else { return true };
        let kind = kind.split(';').next().unwrap_or(kind);
        kind.trim().eq_ignore_ascii_case(expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_fields_are_read_alike() {
        let mut map = HeaderMap::new();
        map.insert("content-type", "Text/Event-Stream; charset=utf-8".parse().unwrap());
        map.append("x-two", "1".parse().unwrap());
        map.append("x-two", "2".parse().unwrap());
        let list = [
            httparse::Header { name: "Content-Type", value: b"Text/Event-Stream; charset=utf-8" },
            httparse::Header { name: "X-Two", value: b"1" },
            httparse::Header { name: "X-Two", value: b"2" },
        ];
        for fields in [Fields::Map(&map), Fields::List(&list)] {
            let head = Head { status: 200, fields };
            assert_eq!(head.content_type().as_deref(), Some("text/event-stream"));
            assert!(head.is("text/event-stream") && !head.is("application/json"));
            assert_eq!(fields.text("x-two"), Some("1"));
            assert_eq!(fields.get("x-none"), None);
        }
        let head = Head { status: 200, fields: Fields::List(&[]) };
        assert!(head.is("application/json") && head.content_type().is_none());
    }
}
