//! What many runs of one measurement come to.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Median, minimum and maximum: machines are shared, and a mean would be of the neighbours too.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The least.
    pub minimum: f64,
    /// The most.
    pub maximum: f64,
}

impl Spread {
    /// Of at least one value.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Self {
            median: values[values.len() / 2],
            minimum: values[0],
            maximum: values[values.len() - 1],
        }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Of ten and more the tenths are noise; of rates below that the hundredths are not.
        let digits = match self.median {
            small if small < 10.0 => 2,
            middle if middle < 1000.0 => 1,
            _ => 0,
        };
        let Self {
            median,
            minimum,
            maximum,
        } = self;
        write!(f, "{median:.digits$} ({minimum:.digits$}-{maximum:.digits$})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_ends() {
        let spread = Spread::of([3.0, 1.0, 2.0]);
        assert_eq!(spread.to_string(), "2.00 (1.00-3.00)");
        assert_eq!(Spread::of([54.321]).to_string(), "54.3 (54.3-54.3)");
    }
}
