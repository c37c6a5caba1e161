//! Just enough HTTP/1.1: requests with a length, one after the other on a connection.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
};

/// Bytes of a request's head, and of its body.
const HEAD_MAX: usize = 16 * 1024;
const BODY_MAX: usize = 64 << 20;

/// A request.
#[derive(Debug, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// A header's value by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

/// Reads the next request; `None` at the end of the connection. `buffer` keeps what came early.
pub(crate) fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<Request>> {
    let (mut request, head) = loop {
        if let Some(found) = head(buffer)? {
            break found;
        }
        if buffer.len() > HEAD_MAX || !fill(stream, buffer)? {
            return Ok(None);
        }
    };
    let length: usize =
        request.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    if length > BODY_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    while buffer.len() < head + length {
        if !fill(stream, buffer)? {
            return Ok(None);
        }
    }
    request.body = buffer.get(head..head + length).unwrap_or_default().to_vec();
    buffer.drain(..head + length);
    Ok(Some(request))
}

fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<bool> {
    let mut chunk = [0; 64 * 1024];
    let count = stream.read(&mut chunk)?;
    buffer.extend_from_slice(chunk.get(..count).unwrap_or_default());
    Ok(count > 0)
}

fn head(buffer: &[u8]) -> io::Result<Option<(Request, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut parsed = httparse::Request::new(&mut headers);
    let status = parsed.parse(buffer).map_err(io::Error::other)?;
    let httparse::Status::Complete(length) = status else { return Ok(None) };
    let headers = parsed.headers.iter().map(|header| {
        let value = String::from_utf8_lossy(header.value).into_owned();
        (header.name.to_ascii_lowercase(), value)
    });
    let request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: parsed.path.unwrap_or_default().to_owned(),
        headers: headers.collect(),
        body: Vec::new(),
    };
    Ok(Some((request, length)))
}

/// Writes an answer.
pub(crate) fn answer(stream: &mut TcpStream, status: u16, text: &str) -> io::Result<()> {
    let retry = if status == 429 { "retry-after: 0\r\n" } else { "" };
    let length =
        if status == 204 { String::new() } else { format!("content-length: {}\r\n", text.len()) };
    let body = if status == 204 { "" } else { text };
    write!(stream, "HTTP/1.1 {status} Answer\r\n{retry}{length}\r\n{body}")?;
    stream.flush()
}
