//! Limits on the parts of a template, which the engine would read and run without counting them.

use minijinja::machinery::{Token, tokenize};
use minijinja::syntax::SyntaxConfig;

use super::said;

/// Names, operators and brackets of one tag; tags with `%`, and opening brackets, of a template.
pub(super) const MOST_PARTS: usize = 200;
/// Sums of a template: each may double a list, for which the engine does not count.
const MOST_SUMS: usize = 8;

/// Refuses what would grow without the engine counting it: in a tag, `- - - 1` or a row of filters; over tags, a row of
/// `elif`; while it runs, a loop that calls itself, sums of lists, and lists that hold a list twice, again and again.
pub(super) fn check_parts(source: &str) -> Result<(), String> {
    let (mut parts, mut blocks, mut brackets, mut sums) = (0, 0, 0, 0);
    let mut is_recursive = false;
    let mut lists = Lists::default();
    for token in tokenize(source, false, SyntaxConfig::default()) {
        let token = token.map_err(|error| said(&error))?.0;
        match token {
            Token::VariableStart => parts = 0,
            Token::BlockStart => (parts, blocks) = (0, blocks + 1),
            Token::BracketOpen | Token::BraceOpen | Token::ParenOpen => {
                (parts, brackets) = (parts + 1, brackets + 1);
            }
            Token::BlockEnd if is_recursive => {
                return Err("must have no recursive loop".to_owned());
            }
            Token::Plus => (parts, sums) = (parts + 1, sums + 1),
            _ => parts += 1,
        }
        for (count, most, what) in [
            (parts, MOST_PARTS, "parts in one tag"),
            (blocks, MOST_PARTS, "tags with %"),
            (brackets, MOST_PARTS, "brackets"),
            (sums, MOST_SUMS, "+"),
        ] {
            if count > most {
                return Err(format!("must have at most {most} {what}"));
            }
        }
        is_recursive = matches!(token, Token::Ident("recursive"));
        lists.check(&token)?;
    }
    Ok(())
}

/// What a bracket that is open begins.
#[derive(PartialEq)]
enum Bracket {
    /// Arguments or a subscript.
    Other,
    /// `[` or `{`: a list or a map.
    List,
    /// `(`: a part of an expression, or a list if it has commas.
    Group { has_comma: bool, has_name: bool },
}

/// Checks that lists and maps that a template writes hold constants alone.
#[derive(Default)]
struct Lists {
    open: Vec<Bracket>,
    /// The last token ended a value: a bracket behind it is none of a list.
    is_value: bool,
    /// Within `{% set`, where a comma makes a list without brackets.
    is_set: bool,
    is_first: bool,
}

impl Lists {
    fn check(&mut self, token: &Token<'_>) -> Result<(), String> {
        const NAMED: &str = "must have constants alone in a list; put texts together by ~";
        let is_name = match token {
            Token::Ident(word) => {
                !["true", "false", "none", "True", "False", "None"].contains(word)
            }
            _ => !is_constant(token) && !is_bracket(token),
        };
        if is_name {
            for bracket in &mut self.open {
                match bracket {
                    Bracket::Other => {}
                    Bracket::List => return Err(NAMED.to_owned()),
                    Bracket::Group { has_name, .. } => *has_name = true,
                }
            }
        }
        match token {
            Token::VariableStart | Token::BlockStart => self.open.clear(),
            Token::BracketOpen if !self.is_value => self.open.push(Bracket::List),
            Token::BraceOpen => self.open.push(Bracket::List),
            Token::ParenOpen if !self.is_value => self.open.push(Bracket::Group {
                has_comma: false,
                has_name: false,
            }),
            Token::BracketOpen | Token::ParenOpen => self.open.push(Bracket::Other),
            Token::Comma => match self.open.last_mut() {
                Some(Bracket::Group { has_comma, .. }) => *has_comma = true,
                None if self.is_set => return Err(NAMED.to_owned()),
                _ => {}
            },
            Token::BracketClose | Token::BraceClose | Token::ParenClose => {
                let both = Bracket::Group {
                    has_comma: true,
                    has_name: true,
                };
                if self.open.pop().is_some_and(|closed| closed == both) {
                    return Err(NAMED.to_owned());
                }
            }
            _ => {}
        }
        self.is_set = match token {
            Token::Ident(word) if self.is_first => *word == "set",
            Token::BlockStart | Token::VariableStart => false,
            _ => self.is_set,
        };
        self.is_first = matches!(token, Token::BlockStart);
        self.is_value = match token {
            Token::Ident(word) => !KEYWORDS.contains(word),
            Token::Str(_)
            | Token::String(_)
            | Token::BracketClose
            | Token::BraceClose
            | Token::ParenClose => true,
            _ => false,
        };
        Ok(())
    }
}

fn is_constant(token: &Token<'_>) -> bool {
    matches!(
        token,
        Token::Str(_)
            | Token::String(_)
            | Token::Int(_)
            | Token::Int128(_)
            | Token::Float(_)
            | Token::Comma
            | Token::Colon
            | Token::Minus
    )
}

fn is_bracket(token: &Token<'_>) -> bool {
    matches!(
        token,
        Token::BracketOpen
            | Token::BraceOpen
            | Token::ParenOpen
            | Token::BracketClose
            | Token::BraceClose
            | Token::ParenClose
    )
}

/// Words behind which a bracket begins a list.
const KEYWORDS: [&str; 9] = ["and", "else", "elif", "if", "in", "is", "not", "or", "with"];
