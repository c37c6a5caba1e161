use super::*;

/// What came of an answer.
#[derive(Debug, Default, PartialEq, Eq, Clone)]
struct Got {
    status: u16,
    kind: Option<String>,
    body: String,
    trailer: Option<String>,
}

impl From<Broken> for String {
    fn from(broken: Broken) -> Self {
        broken.0.to_owned()
    }
}

impl Sink for Got {
    type Error = String;
    fn head(&mut self, head: &Head<'_>) -> Result<(), String> {
        assert_eq!(self.status, 0, "one head");
        self.status = head.status;
        self.kind = head.fields.text("X-Kind").map(ToOwned::to_owned);
        Ok(())
    }
    fn body(&mut self, bytes: &[u8]) -> Result<(), String> {
        assert_ne!(self.status, 0, "the head comes first");
        self.body.push_str(std::str::from_utf8(bytes).unwrap());
        Ok(())
    }
    fn trailers(&mut self, fields: &Fields<'_>) -> Result<(), String> {
        self.trailer = fields.text("x-sum").map(ToOwned::to_owned);
        Ok(())
    }
}

/// How it ended.
#[derive(Debug, PartialEq, Eq, Clone)]
enum End {
    /// Complete; whether the connection is kept, whether more came.
    Done(bool, bool),
    /// Complete with the end of the connection.
    AtClose,
    /// It broke off.
    Cut,
    Refused(String),
}

fn decode(pieces: &[&[u8]], bodiless: bool) -> (Got, End) {
    let (mut got, mut decoder) = (Got::default(), Decoder::default());
    decoder.begin(bodiless);
    let mut surplus = false;
    let mut done = false;
    for piece in pieces {
        if done {
            surplus |= !piece.is_empty();
            continue;
        }
        match decoder.feed(piece, &mut got) {
            Ok(Progress::More) => {}
            Ok(Progress::Done { surplus: more }) => {
                done = true;
                surplus = more;
            }
            Err(why) => return (got, End::Refused(why)),
        }
    }
    let end = match (done, decoder.eof()) {
        (true, _) => End::Done(decoder.keep_alive(), surplus),
        (false, true) => End::AtClose,
        (false, false) => End::Cut,
    };
    (got, end)
}

/// The same whatever the reads are: whole, split at every byte, byte by byte.
fn read(text: &str, bodiless: bool) -> (Got, End) {
    let bytes = text.as_bytes();
    let whole = decode(&[bytes], bodiless);
    for at in 0..=bytes.len() {
        let (a, b) = bytes.split_at(at);
        let parts = decode(&[a, b], bodiless);
        assert_eq!(parts, whole, "{text:?} split at {at}");
    }
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(decode(&single, bodiless), whole, "{text:?} byte by byte");
    whole
}

fn body(text: &str) -> (String, End) {
    let (got, end) = read(text, false);
    (got.body, end)
}

const KEPT: End = End::Done(true, false);
const CLOSED: End = End::Done(false, false);

#[test]
fn bodies_end_where_the_head_says() {
    for (text, expected, end) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", "hello", KEPT),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "", KEPT),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello", "hello", KEPT),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello", "hello", KEPT),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello", "hello", CLOSED),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: x, Close\r\n\r\nhello",
            "hello",
            CLOSED,
        ),
        ("HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello", "hello", CLOSED),
        (
            "HTTP/1.0 200 OK\r\ncontent-length: 5\r\nConnection: Keep-Alive\r\n\r\nhello",
            "hello",
            KEPT,
        ),
        ("HTTP/1.1 200 OK\r\n\r\nhello", "hello", End::AtClose),
        ("HTTP/1.1 200\r\n\r\n", "", End::AtClose),
        ("HTTP/1.1 204 No\r\n\r\n", "", KEPT),
        ("HTTP/1.1 304 No\r\ncontent-length: 9\r\n\r\n", "", KEPT),
        (
            "HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 103 x\r\nlink: y\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
            "hi",
            KEPT,
        ),
        ("HTTP/1.1 200 OK\ncontent-length: 2\n\nhi", "hi", KEPT),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\n\r\n",
            "hi",
            End::Done(true, true),
        ),
    ] {
        assert_eq!(body(text), (expected.to_owned(), end), "{text:?}");
    }
    let (got, end) = read("HTTP/1.1 200 OK\r\ncontent-length: 5\r\nX-KIND: a b\r\n\r\n", true);
    assert_eq!((got.status, got.kind.as_deref(), end), (200, Some("a b"), KEPT), "of HEAD");
}

#[test]
fn chunks_are_taken_apart() {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    for (chunks, expected, end) in [
        ("5\r\nhello\r\n0\r\n\r\n", "hello", KEPT),
        ("2\r\nhe\r\n003\r\nllo\r\n0\r\n\r\n", "hello", KEPT),
        ("A;ext=1;b=\"c\"\r\n0123456789\r\n0;last\r\n\r\n", "0123456789", KEPT),
        ("a \t;x\r\n0123456789\r\n0 \r\n\r\n", "0123456789", KEPT),
        ("4\r\ngrü\r\n0\r\nX-Sum: 7\r\nother: y\r\n\r\n", "grü", KEPT),
        ("5\r\nhello\r\n0\r\n\r\nmore", "hello", End::Done(true, true)),
        ("5\r\nhel", "hel", End::Cut),
        ("5\r\nhello\r\n", "hello", End::Cut),
        ("5\r\nhello\r\n0\r\n", "hello", End::Cut),
        ("", "", End::Cut),
    ] {
        let text = format!("{head}{chunks}");
        if chunks.contains("grü") {
            let (got, end) = decode(&[text.as_bytes()], false);
            assert_eq!((got.body.as_str(), got.trailer.as_deref(), end), ("grü", Some("7"), KEPT));
            continue;
        }
        assert_eq!(body(&text), (expected.to_owned(), end), "{chunks:?}");
    }
    let (got, _) = read(&format!("{head}1\r\nx\r\n0\r\nx-sum: 7\r\n\r\n"), false);
    assert_eq!(got.trailer.as_deref(), Some("7"));
}

#[test]
fn what_is_no_answer_is_refused() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n";
    for (text, why) in [
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n".to_owned(),
            "contradict",
        ),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5, 6\r\n\r\n".into(), "contradict"),
        ("HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n".into(), "not a number"),
        ("HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\n".into(), "not a number"),
        ("HTTP/1.1 200 OK\r\ncontent-length:\r\n\r\n".into(), "not a number"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n".into(), "not a number"),
        (format!("{chunked}content-length: 5\r\n\r\n"), "both a content length and chunks"),
        (format!("{chunked}transfer-encoding: chunked\r\n\r\n"), "coding"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n".into(), "coding"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\n\r\n".into(), "coding"),
        ("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".into(), "HTTP/1.0"),
        ("HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 0\r\n\r\n".into(), "header"),
        ("HTTP/1.1 200 OK\r\nx : a\r\n\r\n".into(), "header"),
        ("HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n".into(), "header"),
        ("HTTP/1.1 101 Switching\r\n\r\n".into(), "another protocol"),
        ("HTTP/2 200 OK\r\n\r\n".into(), "version"),
        ("SSH-2.0-OpenSSH\r\n\r\n".into(), "invalid HTTP"),
        ("SSH-2.0-OpenSSH\r\n".into(), "version"),
        ("\r\nH \u{5}HTTP/1.1 100 Continue\r\nTTP/1".into(), "version"),
        ("\r\n\r\nHTTP/1.1 \u{5}\r\n\r\n".into(), "status"),
        ("HTTP/1.1 2x0 OK\r\n\r\n".into(), "status"),
        (format!("{chunked}\r\nx\r\n"), "no valid size"),
        (format!("{chunked}\r\n\r\n"), "no valid size"),
        (format!("{chunked}\r\n5\nhello"), "no valid size"),
        (format!("{chunked}\r\n5;x\nhello"), "no valid size"),
        (format!("{chunked}\r\n-1\r\n"), "no valid size"),
        (format!("{chunked}\r\n5 5\r\n"), "no valid size"),
        (format!("{chunked}\r\n10000000000000000\r\n"), "too large"),
        (format!("{chunked}\r\n2\r\nabc\r\n"), "longer than its size"),
        (format!("{chunked}\r\n0\r\nx y: 1\r\n\r\n"), "header"),
    ] {
        let (_, end) = read(&text, false);
        let End::Refused(found) = end else { panic!("{text:?}: {end:?}") };
        assert!(found.contains(why), "{text:?}: {found}");
    }
}

#[test]
fn everything_is_bounded() {
    let refused = |start: &str, piece: &str, most: usize| {
        let (mut got, mut decoder) = (Got::default(), Decoder::default());
        decoder.begin(false);
        let mut result = decoder.feed(start.as_bytes(), &mut got);
        let mut fed = start.len();
        while result.is_ok() && fed < 10 * 1024 * 1024 {
            result = decoder.feed(piece.as_bytes(), &mut got);
            fed += piece.len();
            assert!(decoder.kept.len() <= HEAD_BYTES_MAX, "memory");
        }
        assert!(result.is_err() && fed <= most, "{start:?}: {result:?} after {fed}");
        result.unwrap_err()
    };
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let kib = "a".repeat(1000);
    let limit = HEAD_BYTES_MAX + 2000;
    refused("HTTP/1.1 200 OK\r\nx: ", &kib, limit);
    refused("HTTP/1.1 200 ", &kib, limit);
    refused("HTTP/1.1 200 OK\r\n", "a: b\r\n", limit);
    refused(&format!("{chunked}0\r\nx: "), &kib, limit);
    refused(&format!("{chunked}0\r\n"), "a: b\r\n", limit);
    refused(&format!("{chunked}5;x="), &kib, CHUNK_LINE_MAX + 2000);
    refused(&format!("{chunked}0"), "0", CHUNK_LINE_MAX + 2000);
    let many = "a: b\r\n".repeat(FIELDS_MAX + 1);
    let why = refused(&format!("HTTP/1.1 200 OK\r\n{many}\r\n"), "x", limit);
    assert!(why.contains("too many header fields"), "{why}");
    let why = refused("HTTP/1.1 100 Go\r\n\r\n", "HTTP/1.1 100 Go\r\n\r\n", limit);
    assert!(why.contains("interim"), "{why}");
}
