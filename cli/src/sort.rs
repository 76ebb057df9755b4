//! `--sort` and `--reverse`: the order of a list that is read whole.

use std::cmp::Ordering;

use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub(crate) struct Sort<Column: ValueEnum + Clone + Send + Sync + 'static> {
    /// Column to sort by
    #[arg(long, value_name = "COLUMN")]
    sort: Option<Column>,
    /// Reverse the order
    #[arg(long)]
    reverse: bool,
}

impl<Column: ValueEnum + Clone + Send + Sync + 'static> Sort<Column> {
    /// As they came where no column was named; ties stay as they came.
    pub(crate) fn sort<T>(&self, items: &mut [T], compare: impl Fn(&Column, &T, &T) -> Ordering) {
        if let Some(column) = &self.sort {
            items.sort_by(|a, b| compare(column, a, b));
        }
        if self.reverse {
            items.reverse();
        }
    }
}
