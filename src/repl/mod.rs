//! The statement language of `florin repl`, and the line editor.
//!
//! [`parse()`] reads a statement, [`Pages`] sends it and reads the answer, [`table`] and [`json`]
//! render a page of it; [`schema`] is the vocabulary of them all. Only [`editor`] knows a terminal.
//! The command decides where statements come from and how the process ends.

pub mod answer;
pub mod complete;
pub mod editor;
pub mod error;
pub mod help;
pub mod highlight;
pub mod json;
pub mod number;
pub mod parse;
pub mod schema;
pub mod table;
pub mod token;

pub use answer::{Answer, Extent, Pages, Tally};
pub use editor::{Line, LineEditor};
pub use error::SyntaxError;
pub use parse::{Request, Statement, parse};
pub use schema::Form;
pub use token::statement_end;
