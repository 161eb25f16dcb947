//! The statement language of `florin repl`, and the line editor.
//!
//! [`parse()`] reads a statement, [`execute`] sends it, [`table`] and [`json`] show what came back;
//! [`schema`] is the vocabulary of them all. Only [`editor`] knows a terminal. Where statements
//! come from (terminal, pipe, command line) and how the process ends is the command's concern.

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

pub use answer::{Answer, Extent, execute};
pub use editor::{Line, LineEditor};
pub use error::SyntaxError;
pub use parse::{Request, Statement, parse};
pub use token::statement_end;
