//! What was measured, beside what it may be. No I/O but the printing.

use std::fmt::Write;

/// One figure.
#[derive(Clone, Debug)]
pub struct Row {
    what: String,
    measured: String,
    limit: String,
    verdict: Verdict,
}

/// What a figure means for the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It keeps its limit or target.
    Held,
    /// A count above its limit: the run fails.
    Exceeded,
    /// A ratio beyond its target: told, no more, since clocks are noisy.
    Beyond,
    /// It has no limit.
    Told,
}

impl Row {
    /// A count that must not be above its limit.
    pub fn count(what: impl Into<String>, count: usize, limit: usize) -> Row {
        let verdict = if count <= limit { Verdict::Held } else { Verdict::Exceeded };
        Row { what: what.into(), measured: count.to_string(), limit: format!("at most {limit}"), verdict }
    }

    /// A figure that should not be above its target.
    pub fn at_most(what: impl Into<String>, figure: f64, target: f64, unit: &str) -> Row {
        let verdict = if figure <= target { Verdict::Held } else { Verdict::Beyond };
        Row {
            what: what.into(),
            measured: format!("{figure:.2}{unit}"),
            limit: format!("at most {target}{unit}"),
            verdict,
        }
    }

    /// A figure that should not be below its target.
    pub fn at_least(what: impl Into<String>, figure: f64, target: f64, unit: &str) -> Row {
        let verdict = if figure >= target { Verdict::Held } else { Verdict::Beyond };
        Row {
            what: what.into(),
            measured: format!("{figure:.2}{unit}"),
            limit: format!("at least {target}{unit}"),
            verdict,
        }
    }

    /// A figure without limit.
    pub fn told(what: impl Into<String>, measured: impl Into<String>) -> Row {
        Row { what: what.into(), measured: measured.into(), limit: String::new(), verdict: Verdict::Told }
    }
}

/// All figures of a run.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Row>,
}

impl Table {
    /// Adds the figures of one measurement and prints them.
    pub fn add(&mut self, title: &str, rows: impl IntoIterator<Item = Row>) {
        let rows: Vec<_> = rows.into_iter().collect();
        println!("\n== {title}\n{}", lines(&rows));
        self.rows.extend(rows);
    }

    /// The counts above their limits.
    pub fn exceeded(&self) -> Vec<String> {
        let exceeded = self.rows.iter().filter(|row| row.verdict == Verdict::Exceeded);
        exceeded.map(|row| format!("{}: {}, {}", row.what, row.measured, row.limit)).collect()
    }
}

fn lines(rows: &[Row]) -> String {
    let width = |of: fn(&Row) -> &String| rows.iter().map(|row| of(row).chars().count()).max().unwrap_or_default();
    let (what, measured, limit) = (width(|r| &r.what), width(|r| &r.measured), width(|r| &r.limit));
    let mut text = String::new();
    for row in rows {
        let verdict = match row.verdict {
            Verdict::Held => "ok",
            Verdict::Exceeded => "EXCEEDED",
            Verdict::Beyond => "over",
            Verdict::Told => "",
        };
        let cells = (&row.what, &row.measured, &row.limit);
        let line = format!("{:<what$}  {:>measured$}  {:<limit$}  {verdict}", cells.0, cells.1, cells.2);
        // Writing into a String does not fail.
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// The value below which that part (0 to 1) of the values lies; of none it is not a number.
pub fn percentile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * part).round() as usize).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_count_above_its_limit_fails_the_run() {
        let mut table = Table::default();
        table.add("t", [Row::count("a", 4, 4), Row::at_most("b", 2.0, 1.15, ""), Row::told("c", "x")]);
        assert!(table.exceeded().is_empty());
        table.add("t", [Row::count("d", 5, 4)]);
        assert_eq!(table.exceeded(), ["d: 5, at most 4"]);
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        assert_eq!([0.0, 0.5, 0.95].map(|part| percentile(&[3.0, 1.0, 2.0], part)), [1.0, 2.0, 3.0]);
        assert!(percentile(&[], 0.5).is_nan());
    }
}
