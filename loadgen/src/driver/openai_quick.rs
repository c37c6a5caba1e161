//! The usual event of a streamed completion, looked at without building anything.
//!
//! Nearly every event is one choice with a piece of text and nothing else that matters. Those are
//! told here by one pass over their bytes; anything else, and anything that may be wrong, is left
//! to the full parser, so that both together say what the full parser alone would.

use super::llm::Filled;

/// What the usual event has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Quick {
    /// Text.
    pub(super) output: bool,
    /// Reasoning.
    pub(super) reasoning: bool,
    /// When it was sent, from a server of ours.
    pub(super) sent_ns: Option<u64>,
}

/// Deepest nesting of what is passed over here.
const DEPTH_MAX: u32 = 8;

/// Looks at an event; `None` where it is not a usual one.
pub(super) fn look(data: &[u8]) -> Option<Quick> {
    let mut scan = Scan { rest: data, known: 0 };
    let (mut quick, mut sent_ns) = (None, None);
    scan.object(|scan, key| {
        match key {
            b"choices" => {
                scan.once(0)?;
                quick = Some(scan.choices()?);
            }
            b"usage" => {
                scan.once(1)?;
                scan.word(b"null")?;
            }
            b"timings" => {
                scan.once(2)?;
                scan.word(b"null")?;
            }
            b"error" => {
                scan.once(3)?;
                scan.word(b"null")?;
            }
            b"sent_ns" => {
                scan.once(10)?;
                sent_ns = Some(scan.whole_number()?);
            }
            _ => scan.skip(DEPTH_MAX)?,
        }
        Some(())
    })?;
    scan.blanks();
    if scan.rest.is_empty() { quick.map(|quick| Quick { sent_ns, ..quick }) } else { None }
}

/// What has not been looked at.
struct Scan<'a> {
    rest: &'a [u8],
    /// Keys with a meaning that were seen: the full parser refuses them twice.
    known: u32,
}

impl<'a> Scan<'a> {
    fn once(&mut self, key: u32) -> Option<()> {
        let bit = 1 << key;
        let new = self.known & bit == 0;
        self.known |= bit;
        new.then_some(())
    }

    fn blanks(&mut self) {
        while let [b' ' | b'\n' | b'\r' | b'\t', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    /// The next byte, behind blanks.
    fn peek(&mut self) -> Option<u8> {
        self.blanks();
        self.rest.first().copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        self.blanks();
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        (*first == byte).then_some(())
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.blanks();
        self.rest = self.rest.strip_prefix(word)?;
        Some(())
    }

    /// A text without escapes.
    fn text(&mut self) -> Option<&'a [u8]> {
        self.take(b'"')?;
        let end = memchr::memchr2(b'"', b'\\', self.rest)?;
        let (text, tail) = self.rest.split_at(end);
        self.rest = tail.strip_prefix(b"\"")?;
        let plain = text.iter().all(|byte| (0x20..0x80).contains(byte));
        let valid =
            plain || (text.iter().all(|byte| *byte >= 0x20) && std::str::from_utf8(text).is_ok());
        valid.then_some(text)
    }

    /// Whether a text is there and not empty; null is none.
    fn filled(&mut self) -> Option<Filled> {
        match self.peek()? {
            b'"' => Some(Filled(!self.text()?.is_empty())),
            _ => self.word(b"null").map(|()| Filled(false)),
        }
    }

    /// An object; `member` takes the value of each key.
    fn object(&mut self, mut member: impl FnMut(&mut Self, &'a [u8]) -> Option<()>) -> Option<()> {
        self.take(b'{')?;
        if self.peek()? == b'}' {
            return self.take(b'}');
        }
        loop {
            let key = self.text()?;
            self.take(b':')?;
            member(self, key)?;
            match self.peek()? {
                b',' => self.take(b',')?,
                _ => return self.take(b'}'),
            }
            self.blanks();
        }
    }

    /// A list of one choice.
    fn choices(&mut self) -> Option<Quick> {
        let mut quick = Quick::default();
        self.take(b'[')?;
        self.object(|scan, key| {
            match key {
                b"text" => {
                    scan.once(4)?;
                    quick.output |= scan.filled()?.0;
                }
                b"delta" => {
                    scan.once(5)?;
                    scan.delta(&mut quick)?;
                }
                // The end of an answer is not usual, and neither is a message within a stream.
                b"finish_reason" => {
                    scan.once(6)?;
                    scan.word(b"null")?;
                }
                b"message" => return None,
                _ => scan.skip(DEPTH_MAX)?,
            }
            Some(())
        })?;
        self.take(b']')?;
        Some(quick)
    }

    fn delta(&mut self, quick: &mut Quick) -> Option<()> {
        self.object(|scan, key| {
            match key {
                b"content" => {
                    scan.once(7)?;
                    quick.output |= scan.filled()?.0;
                }
                b"reasoning_content" => {
                    scan.once(8)?;
                    quick.reasoning |= scan.filled()?.0;
                }
                b"reasoning" => {
                    scan.once(9)?;
                    quick.reasoning |= scan.filled()?.0;
                }
                b"tool_calls" => return None,
                _ => scan.skip(DEPTH_MAX)?,
            }
            Some(())
        })
    }

    /// Any value, looked at as strictly as the full parser does.
    fn skip(&mut self, depth: u32) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        match self.peek()? {
            b'"' => self.text().map(|_| ()),
            b'{' => self.object(|scan, _| scan.skip(depth)),
            b'[' => {
                self.take(b'[')?;
                if self.peek()? == b']' {
                    return self.take(b']');
                }
                loop {
                    self.skip(depth)?;
                    match self.peek()? {
                        b',' => self.take(b',')?,
                        _ => return self.take(b']'),
                    }
                }
            }
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            _ => self.number(),
        }
    }

    /// A number without sign, fraction and exponent.
    fn whole_number(&mut self) -> Option<u64> {
        self.blanks();
        let before = self.rest;
        self.number()?;
        let text = before.get(..before.len() - self.rest.len())?;
        std::str::from_utf8(text).ok()?.parse().ok()
    }

    /// A number without exponent.
    fn number(&mut self) -> Option<()> {
        if let [b'-', rest @ ..] = self.rest {
            self.rest = rest;
        }
        let whole = self.digits()?;
        if whole.len() > 1 && whole.starts_with(b"0") {
            return None;
        }
        if let [b'.', rest @ ..] = self.rest {
            self.rest = rest;
            self.digits()?;
        }
        (!matches!(self.rest, [b'e' | b'E', ..])).then_some(())
    }

    fn digits(&mut self) -> Option<&'a [u8]> {
        let end = self.rest.iter().position(|byte| !byte.is_ascii_digit());
        let (digits, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        (!digits.is_empty()).then_some(digits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: Option<Quick> = Some(Quick { output: true, reasoning: false, sent_ns: None });
    const REASONING: Option<Quick> = Some(Quick { output: false, reasoning: true, sent_ns: None });
    const NOTHING: Option<Quick> = Some(Quick { output: false, reasoning: false, sent_ns: None });
    const STAMPED: Option<Quick> =
        Some(Quick { output: true, reasoning: false, sent_ns: Some(u64::MAX) });

    #[test]
    fn usual_events_are_told() {
        for (event, expected) in [
            (r#"{"choices":[{"index":0,"text":"a","finish_reason":null}],"due_ns":1}"#, OUTPUT),
            (
                r#"{"id":"x","created":17.5,"choices":[{"delta":{"content":"grüße"}}],"usage":null}"#,
                OUTPUT,
            ),
            (r#" { "choices" : [ { "text" : "a" , "logprobs" : null } ] } "#, OUTPUT),
            (r#"{"choices":[{"delta":{"role":"assistant","content":null}}]}"#, NOTHING),
            (r#"{"choices":[{"delta":{"content":""}}]}"#, NOTHING),
            (r#"{"choices":[{"delta":{}}],"a":{"b":[1,-2,0.5,true,{}]}}"#, NOTHING),
            (r#"{"choices":[{"text":"a"}],"sent_ns": 18446744073709551615}"#, STAMPED),
            (r#"{"choices":[{"delta":{"reasoning_content":"x"}}]}"#, REASONING),
            (r#"{"choices":[{"delta":{"reasoning":"x","content":null}}]}"#, REASONING),
        ] {
            assert_eq!(look(event.as_bytes()), expected, "{event}");
        }
    }

    #[test]
    fn all_else_is_left_to_the_full_parser() {
        for event in [
            "",
            "[DONE]",
            "{}",
            r#"{"choices":[]}"#,
            r#"{"choices":null}"#,
            r#"{"choices":[{"text":"a"},{"text":"b"}]}"#,
            r#"{"choices":[{"text":"a","finish_reason":"stop"}]}"#,
            r#"{"choices":[{"text":"a"}],"usage":{"completion_tokens":1}}"#,
            r#"{"choices":[{"text":"a"}],"timings":{}}"#,
            r#"{"choices":[{"text":"a"}],"error":{}}"#,
            r#"{"choices":[{"text":"a"}],"choices":[{"text":"a"}]}"#,
            r#"{"choices":[{"text":"a","text":"a"}]}"#,
            r#"{"choices":[{"text":"a\n"}]}"#,
            r#"{"choices":[{"text":["a"]}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[]}}]}"#,
            r#"{"choices":[{"delta":null}]}"#,
            r#"{"choices":[{"message":{}}]}"#,
            r#"{"choices":[{"text":"a"}]}x"#,
            r#"{"choices":[{"text":"a"}],}"#,
            r#"{"choices":[{"text":"a"}] "b":1}"#,
            r#"{"choices":[{"text":"a"}],"sent_ns":-1}"#,
            r#"{"choices":[{"text":"a"}],"sent_ns":1.5}"#,
            r#"{"choices":[{"text":"a"}],"sent_ns":18446744073709551616}"#,
            r#"{"choices":[{"text":"a"}],"b":01}"#,
            r#"{"choices":[{"text":"a"}],"b":1.}"#,
            r#"{"choices":[{"text":"a"}],"b":1e5}"#,
            r#"{"choices":[{"text":"a"}],"b":-}"#,
            r#"{"choices":[{"text":"a"}],"b":tru}"#,
            r#"{"choices":[{"text":"a"}],"b":[1,]}"#,
            r#"{"choices":[{"text":"a"}],b:1}"#,
            r#"{"choices":[{"text":"a"}"#,
            "{\"choices\":[{\"text\":\"a\u{1}\"}]}",
        ] {
            assert_eq!(look(event.as_bytes()), None, "{event}");
        }
        assert_eq!(look(b"{\"choices\":[{\"text\":\"\xff\"}]}"), None);
        let deep = format!(
            "{{\"choices\":[{{\"text\":\"a\"}}],\"b\":{}{}}}",
            "[".repeat(99),
            "]".repeat(99)
        );
        assert_eq!(look(deep.as_bytes()), None);
    }
}
