//! Parameters: an unchecked literal that anybody may write, and the checked form that everything else takes.

mod budget;
mod checked;
mod literal;
mod security;

pub use budget::Budget;
pub(crate) use checked::Division;
pub use checked::Parameters;
pub use literal::{ParameterError, ParametersLiteral};
pub use security::{SECURITY_TABLE, Security, SecurityRow};
