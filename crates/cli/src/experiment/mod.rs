//! Experiments: networks × data sets × methods × seeds, one run after another, each a row of a table.
//!
//! | part | module |
//! |---|---|
//! | the suite file | [`suite`] |
//! | files in the output folder | [`store`] |
//! | one teacher, one run | [`work`] |
//! | means, intervals, paired differences | [`tables`] |

pub mod store;
pub mod suite;
pub mod tables;
pub mod work;
