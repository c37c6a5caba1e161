//! One module's tokens: what it declares, and the paths that it names.
//!
//! Tokens and not a syntax tree, because paths stand in the arguments of macros too.

use std::{collections::BTreeSet, iter::Peekable};

use proc_macro2::{Delimiter, Ident, Spacing, TokenStream, TokenTree, token_stream::IntoIter};

use crate::module::{Import, Reference};

/// Words that begin a definition; its name follows.
const DEFINING: [&str; 9] =
    ["fn", "struct", "enum", "union", "trait", "type", "const", "static", "macro_rules"];

/// What a module's own code says, the code of its children not included.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) children: Vec<Child>,
    pub(crate) defines: BTreeSet<String>,
    pub(crate) imports: Vec<Import>,
    pub(crate) paths: Vec<Reference>,
}

/// A module that is declared here.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) name: String,
    /// Its code, if that stands here.
    pub(crate) code: Option<TokenStream>,
    /// Its file, if an attribute `path` names one.
    pub(crate) file: Option<String>,
}

/// Reads the code of one module.
pub(crate) fn module(code: TokenStream) -> Found {
    let mut found = Found::default();
    Scan { found: &mut found, top: true }.tokens(code);
    found
}

type Tokens = Peekable<IntoIter>;

struct Scan<'a> {
    found: &'a mut Found,
    /// At the level of the module's items, not within one of them.
    top: bool,
}

impl Scan<'_> {
    fn tokens(&mut self, code: TokenStream) {
        let mut tokens = code.into_iter().peekable();
        let mut file = None;
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    match self.attribute(&mut tokens) {
                        Attribute::Test => skip_item(&mut tokens),
                        Attribute::File(name) => file = Some(name),
                        Attribute::Other => {}
                    }
                }
                TokenTree::Ident(word) => self.word(&word, &mut tokens, &mut file),
                TokenTree::Group(group) => {
                    let top = std::mem::replace(&mut self.top, false);
                    self.tokens(group.stream());
                    self.top = top;
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }

    fn word(&mut self, word: &Ident, tokens: &mut Tokens, file: &mut Option<String>) {
        let text = word.to_string();
        match text.as_str() {
            "use" if !next_is(tokens, '<') => self.import(tokens, &mut Vec::new()),
            "mod" => self.child(tokens, file.take()),
            // `pub(in crate::place)` uses nothing.
            "pub" => drop(tokens.next_if(is_parenthesis)),
            "crate" | "super" | "self" if path_goes_on(tokens) => {
                let line = word.span().start().line;
                let mut path = vec![text];
                rest_of_path(tokens, &mut path);
                self.found.paths.push(Reference { line, path });
            }
            word if self.top && DEFINING.contains(&word) => {
                tokens.next_if(|token| is_punct(token, '!'));
                if let Some(TokenTree::Ident(name)) = tokens.peek() {
                    self.found.defines.insert(name.to_string());
                }
            }
            _ => {}
        }
    }

    fn child(&mut self, tokens: &mut Tokens, file: Option<String>) {
        let Some(TokenTree::Ident(name)) = tokens.next() else { return };
        let code = match tokens.next() {
            Some(TokenTree::Group(group)) => Some(group.stream()),
            _ => None,
        };
        self.found.children.push(Child { name: name.to_string(), code, file });
    }

    /// Reads one tree of a `use` declaration, behind `before`.
    fn import(&mut self, tokens: &mut Tokens, before: &mut Vec<String>) {
        let depth = before.len();
        let mut line = 0;
        let mut name = None;
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == '*' => {
                    self.imported(line.max(punct.span().start().line), None, before.clone());
                    name = None;
                    before.truncate(depth);
                }
                TokenTree::Punct(punct) if matches!(punct.as_char(), ',' | ';') => {
                    self.named(line, name.take(), before, depth);
                    if punct.as_char() == ';' {
                        return;
                    }
                }
                TokenTree::Ident(word) if word == "as" => {
                    name = tokens.next().map(|token| token.to_string());
                }
                TokenTree::Ident(word) => {
                    line = word.span().start().line;
                    name = Some(word.to_string());
                    before.push(word.to_string());
                }
                TokenTree::Group(group) => {
                    self.import(&mut group.stream().into_iter().peekable(), before);
                    name = None;
                    before.truncate(depth);
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
        self.named(line, name, before, depth);
    }

    /// Notes the name that a tree ends with, if it does, and goes back to where the tree began.
    fn named(&mut self, line: usize, name: Option<String>, path: &mut Vec<String>, depth: usize) {
        if let Some(mut name) = name {
            let mut whole = path.clone();
            // `a::{self}` is `a`.
            if whole.len() > 1 && whole.last().is_some_and(|last| last == "self") {
                whole.pop();
                if name == "self" {
                    name = whole.last().cloned().unwrap_or_default();
                }
            }
            self.imported(line, Some(name), whole);
        }
        path.truncate(depth);
    }

    fn imported(&mut self, line: usize, name: Option<String>, path: Vec<String>) {
        if path.first().is_some_and(|first| matches!(first.as_str(), "crate" | "super" | "self")) {
            self.found.paths.push(Reference { line, path: path.clone() });
        }
        if self.top {
            self.found.imports.push(Import { name, path });
        }
    }

    fn attribute(&mut self, tokens: &mut Tokens) -> Attribute {
        tokens.next_if(|token| is_punct(token, '!'));
        let Some(TokenTree::Group(group)) = tokens.next_if(is_bracket) else {
            return Attribute::Other;
        };
        let mut inner = group.stream().into_iter().peekable();
        match inner.next() {
            Some(TokenTree::Ident(word)) if word == "cfg" && only_in_tests(&mut inner) => {
                Attribute::Test
            }
            Some(TokenTree::Ident(word)) if word == "path" => {
                inner.next();
                let text = inner.next().map(|token| token.to_string()).unwrap_or_default();
                Attribute::File(text.trim_matches('"').to_owned())
            }
            Some(TokenTree::Ident(word)) if word == "doc" => Attribute::Other,
            _ => {
                self.texts(group.stream());
                Attribute::Other
            }
        }
    }

    /// Paths in an attribute, also those in quotes, such as serde's `with = "crate::units"`.
    fn texts(&mut self, code: TokenStream) {
        for token in code.clone() {
            match token {
                TokenTree::Literal(literal) => {
                    let text = literal.to_string();
                    let Ok(inner) = text.trim_matches('"').parse::<TokenStream>() else { continue };
                    let line = literal.span().start().line;
                    let before = self.found.paths.len();
                    self.tokens(inner);
                    self.found.paths.iter_mut().skip(before).for_each(|path| path.line = line);
                }
                TokenTree::Group(group) => self.texts(group.stream()),
                TokenTree::Ident(_) | TokenTree::Punct(_) => {}
            }
        }
        let top = std::mem::replace(&mut self.top, false);
        self.tokens(code);
        self.top = top;
    }
}

enum Attribute {
    /// What follows is compiled for tests only.
    Test,
    /// The module that follows is in this file.
    File(String),
    Other,
}

/// Whether a `cfg` holds in tests only: `test`, or `all(test, ..)`.
fn only_in_tests(tokens: &mut Tokens) -> bool {
    let Some(TokenTree::Group(group)) = tokens.next() else { return false };
    let mut inner = group.stream().into_iter().peekable();
    match inner.next() {
        Some(TokenTree::Ident(word)) if word == "test" => true,
        Some(TokenTree::Ident(word)) if word == "all" => only_in_tests(&mut inner),
        _ => false,
    }
}

/// Passes over the item that begins here: to its semicolon or its block.
fn skip_item(tokens: &mut Tokens) {
    for token in tokens.by_ref() {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == ';' => return,
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => return,
            _ => {}
        }
    }
}

/// Reads `::name::name` as far as it goes.
fn rest_of_path(tokens: &mut Tokens, path: &mut Vec<String>) {
    while path_goes_on(tokens) {
        tokens.next();
        tokens.next();
        let Some(TokenTree::Ident(name)) = tokens.peek() else { return };
        path.push(name.to_string());
        tokens.next();
    }
}

/// Whether `::` is next; the colon of a type has no other behind it.
fn path_goes_on(tokens: &mut Tokens) -> bool {
    matches!(tokens.peek(), Some(TokenTree::Punct(punct))
        if punct.as_char() == ':' && punct.spacing() == Spacing::Joint)
}

fn next_is(tokens: &mut Tokens, character: char) -> bool {
    tokens.peek().is_some_and(|token| is_punct(token, character))
}

fn is_punct(token: &TokenTree, character: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == character)
}

fn is_bracket(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Bracket)
}

fn is_parenthesis(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis)
}
