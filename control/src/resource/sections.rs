//! A long YAML text cut where documents begin, so that several cores read it.

/// Bytes that are worth a thread of their own.
const WORTH: usize = 256 << 10;

/// Whole documents of a text, one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Section<'a> {
    /// Number of its first document in the text; they are counted from 1.
    pub first: usize,
    /// Documents in it.
    pub count: usize,
    /// The documents.
    pub text: &'a str,
}

/// At most `most` sections of about the same length; fewer than two where the text is short, or not as plain as it takes to
/// count documents without reading them.
///
/// A line that begins with three hyphens and a blank begins a document wherever it stands (YAML 1.2.2, section 9.1.2); only
/// directives and the end of a document, marked by three dots, would have to be told from it, and texts with those are not cut.
pub(super) fn sections(text: &str, most: usize) -> Vec<Section<'_>> {
    let length = (text.len() / most.max(1)).max(WORTH);
    let mut sections: Vec<Section<'_>> = vec![];
    let (mut start, mut first, mut next, mut at) = (0, 1, 1, 0);
    for line in text.split_inclusive('\n') {
        let word = line.split_ascii_whitespace().next().unwrap_or_default();
        let is_at_margin = line.starts_with(word);
        if is_at_margin && (word.starts_with('%') || word == "...") {
            return vec![];
        }
        let begins = is_at_margin && word == "---";
        if begins && at - start >= length {
            sections.push(Section {
                first,
                count: next - first,
                text: &text[start..at],
            });
            (start, first) = (at, next);
        }
        // What stands before the first mark is a document, too, unless it is nothing but comments.
        let is_unmarked = next == 1 && !word.is_empty() && !word.starts_with('#');
        next += usize::from(begins || is_unmarked);
        at += line.len();
    }
    sections.push(Section {
        first,
        count: next - first,
        text: &text[start..],
    });
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_counted_and_none_is_cut() {
        let one = format!("kind: A\ntext: |\n  --- {}\n", "x".repeat(1000));
        let text = vec![one; 1000].join("---\n");
        let cut = sections(&text, 3);
        assert_eq!(cut.len(), 3);
        assert_eq!(cut.iter().map(|section| section.text).collect::<String>(), text);
        let mut expected = 1;
        for section in cut {
            assert_eq!(section.first, expected);
            assert_eq!(section.text.matches("kind: A").count(), section.count);
            expected += section.count;
        }
        assert_eq!(expected, 1001);
    }

    #[test]
    fn what_is_short_or_has_directives_stays_whole() {
        let whole = |text: &str| sections(text, 8).len() < 2;
        assert!(whole("a: 1\n---\nb: 2\n"));
        let long = "---\na: 1\n".repeat(WORTH);
        assert!(!whole(&long));
        assert!(whole(&format!("%YAML 1.2\n{long}")));
        assert!(whole(&format!("{long}...\n")));
    }

    #[test]
    fn comments_before_the_first_mark_are_no_document() {
        let text = "# of nothing\n\n---\na: 1\n---\nb: 2\n";
        assert_eq!(sections(text, 1)[0].count, 2);
        assert_eq!(sections("a: 1\nb: 2\n---\nc: 3\n", 1)[0].count, 2);
    }
}
