//! Parameters: an unchecked literal that anybody may write, and the checked form that everything else takes.

mod budget;
mod chain;
mod checked;
mod literal;
mod security;

pub use budget::Budget;
pub use checked::Parameters;
pub(crate) use checked::{Digit, Division};
pub use literal::{ParameterError, ParametersLiteral, SharedChain};
pub use security::{SECURITY_TABLE, Security, SecurityRow};
