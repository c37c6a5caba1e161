//! One HTTP/1.1 connection of the mock server, with all that can go wrong on it.

use std::io::{self, Write as _};

use flate2::{
    Compression,
    write::{DeflateEncoder, GzEncoder},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    fault::{Fault, Faults},
    play::{End, Sink, play},
    protocol::Request,
    script::{Answer, Field, Script, Whole},
    server::Server,
};
use crate::clock::mono_ns;

/// Largest request: prompts of a million tokens are some MB.
pub(super) const REQUEST_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes read at a time: a short request, so that ten thousand connections take 40 MB.
const READ_BYTES: usize = 4 * 1024;

/// Bytes of what pretends to be endless.
const ENDLESS_BYTES: usize = 1024 * 1024 * 1024;

/// Between single bytes of a slow head, and of a slow body.
const SLOW_HEAD_NS: u64 = 200_000;
const SLOW_BODY_NS: u64 = 50_000_000;

/// Between the halves of a split character: long enough for a client to read the first.
const SPLIT_NS: u64 = 300_000;

struct Head {
    method: String,
    path: String,
    length: usize,
    keep_alive: bool,
}

/// Answers until the peer or a fault ends the connection.
///
/// # Errors
/// Of the connection, which are its peer's business.
pub(super) async fn talk(server: &Server, stream: &mut TcpStream) -> io::Result<()> {
    let mut buffer = Vec::new();
    let mut scratch = Vec::new();
    while let Some((head, length)) = read_request(stream, &mut buffer).await? {
        let arrived = mono_ns();
        let body = buffer.get(length..length + head.length).unwrap_or_default();
        let request = Request { method: &head.method, path: &head.path, body };
        let decision = server.decide(&request);
        buffer.drain(..length + head.length);
        let mut out =
            Out { server, stream, faults: decision.faults, scratch: &mut scratch, gzip: None };
        if !out.answer(decision.answer, arrived).await? || !head.keep_alive {
            break;
        }
    }
    Ok(())
}

/// The way back to the client for one answer.
struct Out<'a> {
    server: &'a Server,
    stream: &'a mut TcpStream,
    faults: Faults,
    scratch: &'a mut Vec<u8>,
    gzip: Option<GzEncoder<Vec<u8>>>,
}

impl Out<'_> {
    /// Sends the answer; false when the connection has to end.
    async fn answer(&mut self, answer: Answer, arrived: u64) -> io::Result<bool> {
        match answer {
            Answer::Plain(whole) => self.whole(&whole).await,
            Answer::Aside(script) => self
                .script(&script, self.server.schedule(arrived))
                .await
                .map(|end| end == End::Whole),
            answer => self.serve(answer, arrived).await,
        }
    }

    async fn serve(&mut self, answer: Answer, arrived: u64) -> io::Result<bool> {
        self.server.first_request(arrived);
        if self.faults.has(Fault::Drop) {
            return Ok(false);
        }
        if self.faults.has(Fault::Hang) {
            return gone(self.stream).await.map(|()| false);
        }
        let events = match &answer {
            Answer::Served(whole) | Answer::Plain(whole) => whole.events,
            Answer::Stream(script) | Answer::Aside(script) => script.events(),
        };
        let (schedule, mut slot) = tokio::select! {
            biased;
            admitted = self.server.admit(arrived, events) => admitted,
            gone = gone(self.stream) => return gone.map(|()| false),
        };
        let sent = match &answer {
            Answer::Served(whole) | Answer::Plain(whole) => {
                self.server.alarms.until(schedule.over(events)).await;
                self.whole(whole).await
            }
            Answer::Stream(script) | Answer::Aside(script) => {
                let end = self.script(script, schedule).await;
                end.map(|end| end == End::Whole && !self.server.closes())
            }
        };
        if sent.is_err()
            && let Some(slot) = &mut slot
        {
            slot.abandon();
        }
        sent.map(|go_on| go_on && !self.faults.any(&[Fault::Stale, Fault::CloseDelimited]))
    }

    async fn whole(&mut self, whole: &Whole) -> io::Result<bool> {
        if self.faults == Faults::default() {
            self.scratch.clear();
            write!(
                self.scratch,
                "HTTP/1.1 {}\r\ncontent-type: {}\r\ncontent-length: {}\r\n",
                whole.status,
                whole.content_type,
                whole.body.len()
            )?;
            for (name, value) in &whole.headers {
                write!(self.scratch, "{name}: {value}\r\n")?;
            }
            self.scratch.extend_from_slice(b"\r\n");
            self.scratch.extend_from_slice(&whole.body);
            return self.stream.write_all(self.scratch).await.map(|()| true);
        }
        self.head(whole.status, whole.content_type, &whole.headers).await?;
        if !self.flood().await? {
            return Ok(false);
        }
        self.part(&whole.body).await?;
        self.end().await
    }

    async fn script(
        &mut self,
        script: &Script,
        schedule: super::play::Schedule,
    ) -> io::Result<End> {
        self.head("200 OK", script.content_type, &[]).await?;
        if !self.flood().await? {
            return Ok(End::BrokenOff);
        }
        let (server, faults) = (self.server, self.faults);
        let end = play(script, schedule, faults, (&server.alarms, &server.truth), self).await?;
        if end == End::Whole && !self.end().await? {
            return Ok(End::BrokenOff);
        }
        Ok(end)
    }

    async fn head(
        &mut self,
        status: &str,
        content_type: &str,
        headers: &[Field],
    ) -> io::Result<()> {
        let mut text = String::new();
        if self.faults.has(Fault::Informational) {
            text.push_str("HTTP/1.1 100 Continue\r\n\r\n");
            text.push_str("HTTP/1.1 103 Early Hints\r\nlink: </hint>; rel=preload\r\n\r\n");
        }
        text.push_str("HTTP/1.1 ");
        text.push_str(status);
        if self.faults.has(Fault::OddHead) {
            text.push_str("\r\nCONTENT-TYPE:\t ");
            text.push_str(content_type);
            text.push_str(" \t\r\nX-Empty:\r\nTransfer-Encoding:    Chunked");
        } else {
            text.push_str("\r\ncontent-type: ");
            text.push_str(content_type);
            text.push_str(if self.faults.has(Fault::CloseDelimited) {
                "\r\nconnection: close"
            } else {
                "\r\ntransfer-encoding: chunked"
            });
        }
        for (name, value) in headers {
            text.push_str(&format!("\r\n{name}: {value}"));
        }
        if self.faults.any(&[Fault::Gzip, Fault::ZipBomb]) {
            text.push_str("\r\ncontent-encoding: gzip");
            self.gzip = Some(GzEncoder::new(Vec::new(), Compression::fast()));
        }
        if self.faults.has(Fault::EndlessHead) {
            text.push_str("\r\n");
            self.stream.write_all(text.as_bytes()).await?;
            return self.endless(b"x-filler: 0123456789012345678901234567890123456789\r\n").await;
        }
        text.push_str("\r\n\r\n");
        if !self.faults.has(Fault::SlowHead) {
            return self.stream.write_all(text.as_bytes()).await;
        }
        self.slowly(text.as_bytes(), SLOW_HEAD_NS).await
    }

    async fn slowly(&mut self, bytes: &[u8], between: u64) -> io::Result<()> {
        for byte in bytes {
            self.stream.write_all(std::slice::from_ref(byte)).await?;
            self.server.alarms.until(mono_ns().saturating_add(between)).await;
        }
        Ok(())
    }

    /// Writes `piece` over and over.
    async fn endless(&mut self, piece: &[u8]) -> io::Result<()> {
        let block = piece.repeat((64 * 1024 / piece.len().max(1)).max(1));
        for _ in 0..ENDLESS_BYTES / block.len().max(1) {
            self.stream.write_all(&block).await?;
        }
        Ok(())
    }

    /// Sends what has no end, if that is the fault; false when it was sent.
    async fn flood(&mut self) -> io::Result<bool> {
        if self.faults.has(Fault::LongLine) {
            let block = [b"10000\r\n".as_slice(), &[b'x'; 0x1_0000], b"\r\n"].concat();
            self.endless(&block).await?;
            return Ok(false);
        }
        if !self.faults.has(Fault::ZipBomb) {
            return Ok(true);
        }
        // A megabyte that ends at a byte refers to nothing before it: it may be repeated.
        let text = vec![b'x'; 1024 * 1024];
        let mut deflate = DeflateEncoder::new(Vec::new(), Compression::best());
        deflate.write_all(&text)?;
        deflate.flush()?;
        let packed = std::mem::take(deflate.get_mut());
        let header = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
        self.gzip = None;
        self.part(&header).await?;
        for _ in 0..4096 {
            self.part(&packed).await?;
        }
        Ok(false)
    }

    /// Frames bytes of the body and sends them.
    async fn framed(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.scratch.clear();
        if self.faults.has(Fault::CloseDelimited) {
            self.scratch.extend_from_slice(bytes);
        } else if self.faults.has(Fault::ChunkExtensions) {
            write!(self.scratch, "000{:X};name=\"a;b\";last\r\n", bytes.len())?;
            self.scratch.extend_from_slice(bytes);
            self.scratch.extend_from_slice(b"\r\n");
        } else {
            write!(self.scratch, "{:x}\r\n", bytes.len())?;
            self.scratch.extend_from_slice(bytes);
            self.scratch.extend_from_slice(b"\r\n");
        }
        if self.faults.has(Fault::SlowBody) {
            let bytes = std::mem::take(self.scratch);
            return self.slowly(&bytes, SLOW_BODY_NS).await;
        }
        if !self.faults.has(Fault::Drip) {
            return self.stream.write_all(self.scratch).await;
        }
        for byte in self.scratch.iter() {
            self.stream.write_all(std::slice::from_ref(byte)).await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Ends the body; false when the connection has to end.
    async fn end(&mut self) -> io::Result<bool> {
        if let Some(gzip) = self.gzip.take() {
            let rest = gzip.finish()?;
            self.framed(&rest).await?;
        }
        if self.faults.any(&[Fault::CloseDelimited, Fault::NoLastChunk]) {
            return Ok(false);
        }
        let last: &[u8] = if self.faults.has(Fault::Trailers) {
            b"0\r\nserver-timing: total;dur=1\r\nx-checksum: 0\r\n\r\n"
        } else {
            b"0\r\n\r\n"
        };
        self.stream.write_all(last).await.map(|()| true)
    }
}

impl Sink for Out<'_> {
    async fn part(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            // An empty chunk would end the body.
            return Ok(());
        }
        if let Some(gzip) = &mut self.gzip {
            gzip.write_all(bytes)?;
            gzip.flush()?;
            let packed = std::mem::take(gzip.get_mut());
            return self.framed(&packed).await;
        }
        let cut = bytes.iter().position(|byte| byte & 0xc0 == 0x80);
        match cut.filter(|_| self.faults.has(Fault::SplitUtf8)) {
            Some(cut) => {
                let (head, tail) = bytes.split_at(cut);
                self.framed(head).await?;
                self.server.alarms.until(mono_ns() + SPLIT_NS).await;
                self.framed(tail).await
            }
            None => self.framed(bytes).await,
        }
    }
}

/// Returns when the client has closed the connection.
async fn gone(stream: &TcpStream) -> io::Result<()> {
    loop {
        stream.readable().await?;
        let mut byte = [0];
        match stream.try_read(&mut byte) {
            Ok(0) => return Ok(()),
            // The next request before the answer to this one: it has to wait for it.
            Ok(_) => std::future::pending().await,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Reads a request up to its end; gives its head and the length of that. The body follows in the
/// buffer. `None` at the end of the connection.
async fn read_request(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<(Head, usize)>> {
    let broken = || io::Error::from(io::ErrorKind::InvalidData);
    loop {
        if let Some((length, head)) = parse_head(buffer).map_err(|()| broken())? {
            let end = length.checked_add(head.length).ok_or_else(broken)?;
            if end > REQUEST_BYTES_MAX {
                return Err(broken());
            }
            if buffer.len() >= end {
                return Ok(Some((head, length)));
            }
            buffer.reserve(end - buffer.len());
        } else if buffer.len() > REQUEST_BYTES_MAX {
            return Err(broken());
        }
        buffer.reserve(READ_BYTES);
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

/// Length of a complete head and what it says.
fn parse_head(bytes: &[u8]) -> Result<Option<(usize, Head)>, ()> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes).map_err(|_| ())? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return Ok(None),
    };
    let value = |name: &str| {
        let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.and_then(|header| std::str::from_utf8(header.value).ok())
    };
    let content = value("content-length").map(|text| text.trim().parse().map_err(|_| ()));
    let keep_alive = !value("connection").is_some_and(|text| text.eq_ignore_ascii_case("close"));
    let path = request.path.unwrap_or("/");
    let head = Head {
        method: request.method.unwrap_or_default().to_owned(),
        path: path.split('?').next().unwrap_or(path).to_owned(),
        length: content.transpose()?.unwrap_or(0),
        keep_alive,
    };
    Ok(Some((length, head)))
}
