//! Text to what it means, by recursive descent.

use std::collections::BTreeSet;

use super::{Expression, NotASelector};

/// The longest selector, in bytes.
const TEXT_BYTES: usize = 1 << 16;
/// The longest key of a label, in bytes (libcalico-go `lib/selector/tokenizer`).
const KEY_BYTES: usize = 512;
/// Brackets within brackets: whoever walks an expression may recurse.
const DEPTH: usize = 64;

pub(super) fn parse(text: &str) -> Result<Expression, NotASelector> {
    let mut parser = Parser { text, at: 0, depth: 0 };
    if text.len() > TEXT_BYTES {
        parser.at = TEXT_BYTES;
        return Err(parser.expected(&format!(
            "it is longer than {TEXT_BYTES} bytes; label what is meant instead"
        )));
    }
    parser.skip_space();
    if parser.rest().is_empty() {
        return Ok(Expression::All);
    }
    let expression = parser.or()?;
    parser.skip_space();
    if parser.rest().is_empty() {
        return Ok(expression);
    }
    Err(parser.expected("expected `&&`, `||` or the end"))
}

struct Parser<'a> {
    text: &'a str,
    /// A byte at the start of a character.
    at: usize,
    depth: usize,
}

type Parsed = Result<Expression, NotASelector>;

impl<'a> Parser<'a> {
    fn or(&mut self) -> Parsed {
        self.operands("||", Self::and, Expression::Or)
    }

    fn and(&mut self) -> Parsed {
        self.operands("&&", Self::operation, Expression::And)
    }

    fn operands(
        &mut self,
        operator: &str,
        operand: fn(&mut Self) -> Parsed,
        of: fn(Vec<Expression>) -> Expression,
    ) -> Parsed {
        let first = operand(self)?;
        if !self.takes(operator) {
            return Ok(first);
        }
        let mut all = vec![first, operand(self)?];
        while self.takes(operator) {
            all.push(operand(self)?);
        }
        Ok(of(all))
    }

    fn operation(&mut self) -> Parsed {
        let mut negated = false;
        while self.takes("!") {
            negated = !negated;
        }
        let inner = if self.takes("(") {
            self.bracketed()?
        } else {
            self.leaf()?
        };
        Ok(match inner {
            inner if !negated => inner,
            Expression::Not(inner) => *inner,
            inner => Expression::Not(Box::new(inner)),
        })
    }

    fn bracketed(&mut self) -> Parsed {
        if self.depth == DEPTH {
            return Err(self.expected(&format!("brackets stand more than {DEPTH} deep")));
        }
        self.depth += 1;
        let inner = self.or()?;
        self.depth -= 1;
        self.closing(")")?;
        Ok(inner)
    }

    fn leaf(&mut self) -> Parsed {
        if self.takes("has(") {
            let key = self.key("the key of a label")?;
            self.closing(")")?;
            return Ok(Expression::Has(key));
        }
        for (word, all) in [("all(", Expression::All), ("global(", Expression::Global)] {
            if self.takes(word) {
                self.closing(")")?;
                return Ok(all);
            }
        }
        let key = self.key("a label, such as app == 'web', or has(app), all() or `(`")?;
        self.of_label(key)
    }

    fn of_label(&mut self, key: String) -> Parsed {
        const OPERATORS: &str = "expected `==`, `!=`, `in`, `not in`, `contains`, `starts with` or `ends with`";
        if self.takes("==") {
            return Ok(Expression::Equal(key, self.value()?));
        }
        if self.takes("!=") {
            return Ok(Expression::NotEqual(key, self.value()?));
        }
        if self.takes("contains") {
            return Ok(Expression::Contains(key, self.value()?));
        }
        if self.takes("in") {
            return Ok(Expression::In(key, self.values()?));
        }
        self.skip_space();
        let start = self.at;
        if self.takes("starts") && self.takes("with") {
            return Ok(Expression::StartsWith(key, self.value()?));
        }
        if self.takes("ends") && self.takes("with") {
            return Ok(Expression::EndsWith(key, self.value()?));
        }
        if self.takes("not") && self.takes("in") {
            return Ok(Expression::NotIn(key, self.values()?));
        }
        self.at = start;
        Err(self.expected(OPERATORS))
    }

    fn values(&mut self) -> Result<BTreeSet<String>, NotASelector> {
        self.closing("{")?;
        let mut values = BTreeSet::new();
        while !self.takes("}") {
            values.insert(self.value()?);
            if !self.takes(",") {
                self.closing("}")?;
                break;
            }
        }
        Ok(values)
    }

    fn value(&mut self) -> Result<String, NotASelector> {
        self.skip_space();
        let quote = self.rest().chars().next().filter(|quote| matches!(quote, '"' | '\''));
        let Some(quote) = quote else {
            return Err(self.expected("expected a value in quotes"));
        };
        let inner = &self.rest()[1..];
        let Some(length) = inner.find(quote) else {
            return Err(self.expected("a quote is never closed"));
        };
        self.at += length + 2;
        Ok(inner[..length].to_owned())
    }

    fn key(&mut self, expected: &str) -> Result<String, NotASelector> {
        self.skip_space();
        let in_key = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'/' | b'-');
        let rest = self.rest();
        let length = rest.bytes().position(|byte| !in_key(byte)).unwrap_or(rest.len());
        if length == 0 {
            return Err(self.expected(&format!("expected {expected}")));
        }
        if length > KEY_BYTES {
            return Err(self.expected(&format!("a key is longer than {KEY_BYTES} bytes")));
        }
        self.at += length;
        Ok(rest[..length].to_owned())
    }

    fn closing(&mut self, what: &str) -> Result<(), NotASelector> {
        if self.takes(what) {
            return Ok(());
        }
        Err(self.expected(&format!("expected `{what}`")))
    }

    /// Steps over `word` if it is next.
    fn takes(&mut self, word: &str) -> bool {
        self.skip_space();
        let next = self.rest().starts_with(word);
        if next {
            self.at += word.len();
        }
        next
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn expected(&self, reason: &str) -> NotASelector {
        let before = self.text.bytes().take(self.at);
        // Bytes that continue a character (RFC 3629) are not counted.
        let characters = before.filter(|byte| byte & 0xC0 != 0x80).count();
        NotASelector {
            character: characters + 1,
            reason: reason.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(text: &str) -> String {
        parse(text).unwrap().to_string()
    }

    #[test]
    fn the_whole_language() {
        let cases = [
            ("", "all()"),
            (" \t", "all()"),
            ("all( )", "all()"),
            ("global()", "global()"),
            ("has( a.b/c-d_e )", "has(a.b/c-d_e)"),
            ("a=='b'", "a == \"b\""),
            ("a != 'say \"b\"'", "a != 'say \"b\"'"),
            ("a in{'x','b',\"x\",}", "a in {\"b\", \"x\"}"),
            ("a in {}", "a in {}"),
            ("a not  in { 'x' }", "a not in {\"x\"}"),
            ("a contains'x'", "a contains \"x\""),
            ("a starts with 'x'", "a starts with \"x\""),
            ("a ends with 'x'", "a ends with \"x\""),
            ("!has(a)", "!has(a)"),
            ("!!has(a)", "has(a)"),
            ("!(!has(a))", "has(a)"),
            ("!(!!(!!!has(a)))", "has(a)"),
            (
                "has(a) || has(b) && !(has(c) || has(d))",
                "(has(a) || (has(b) && !(has(c) || has(d))))",
            ),
            ("((has(a)))", "has(a)"),
            ("has == 'all' && in == 'not'", "(has == \"all\" && in == \"not\")"),
            ("contains contains 'contains'", "contains contains \"contains\""),
        ];
        for (text, canonical) in cases {
            assert_eq!(printed(text), canonical, "{text}");
            assert_eq!(printed(canonical), canonical);
        }
    }

    #[test]
    fn says_where_it_stops() {
        let cases = [
            ("a = 'b'", 3, "expected `==`"),
            ("a == b", 6, "value in quotes"),
            ("a == 'b", 6, "never closed"),
            ("a == 'ä' &", 10, "expected `&&`"),
            ("(has(a)", 8, "expected `)`"),
            ("has()", 5, "the key of a label"),
            ("has(a", 6, "expected `)`"),
            ("all(x)", 5, "expected `)`"),
            ("a in 'b'", 6, "expected `{`"),
            ("a in {'b' 'c'}", 11, "expected `}`"),
            ("a not 'b'", 3, "expected `==`"),
            ("a starts 'b'", 3, "expected `==`"),
            ("has(a) has(b)", 8, "expected `&&`"),
            ("a", 2, "expected `==`"),
            ("&& a", 1, "expected a label"),
            ("a == 'b' || ", 13, "expected a label"),
            ("ä == 'b'", 1, "expected a label"),
        ];
        for (text, character, reason) in cases {
            let error = parse(text).unwrap_err();
            assert_eq!(error.character, character, "{text}: {error}");
            assert!(error.reason.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn has_bounds() {
        let deep = |n: usize| "(".repeat(n) + "all()" + &")".repeat(n);
        assert!(parse(&deep(DEPTH)).is_ok());
        assert!(parse(&deep(DEPTH + 1)).unwrap_err().reason.contains("deep"));
        assert!(
            parse(&"!".repeat(TEXT_BYTES + 1))
                .unwrap_err()
                .reason
                .contains("longer")
        );
        assert!(parse(&("!".repeat(60_000) + "all()")).is_ok());
        assert!(parse(&("k".repeat(KEY_BYTES + 1) + " == 'v'")).is_err());
        let wide = vec!["has(a)"; 6_000].join(" || ");
        assert!(parse(&wide).is_ok());
    }
}
