//! Amounts as Kubernetes writes them, so that two can be compared: `1000m` is `1`, `1Gi` is `1024Mi`.

use serde_json::Value;

/// In thousandths of the unit. `None`: it is no amount, or one that no pod has.
pub(super) fn parse(text: &str) -> Option<i128> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '+' && c != '-');
    let (number, suffix) = text.split_at(end.unwrap_or(text.len()));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let (is_negative, whole) = match whole.strip_prefix('-') {
        Some(whole) => (true, whole),
        None => (false, whole.strip_prefix('+').unwrap_or(whole)),
    };
    let are_digits = |part: &str| part.chars().all(|c| c.is_ascii_digit());
    if fraction.len() > 9
        || (whole.is_empty() && fraction.is_empty())
        || !are_digits(whole)
        || !are_digits(fraction)
    {
        return None;
    }
    // In billionths, so that no digit of `n` is lost.
    let mut amount: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    amount = amount.checked_mul(1_000_000_000)?;
    amount += format!("{fraction:0<9}").parse::<i128>().ok()?;
    let (factor, divisor) = scale(suffix)?;
    amount = amount.checked_mul(factor)? / divisor / 1_000_000;
    Some(if is_negative { -amount } else { amount })
}

/// What a suffix multiplies by, and divides by.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    const DECIMAL: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];
    const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    const SMALL: [&str; 4] = ["", "m", "u", "n"];
    if let Some(n) = DECIMAL.iter().position(|known| *known == suffix) {
        return Some((1000_i128.pow(n as u32), 1));
    }
    if let Some(n) = BINARY.iter().position(|known| *known == suffix) {
        return Some((1024_i128.pow(n as u32), 1));
    }
    if let Some(n) = SMALL.iter().position(|known| *known == suffix) {
        return Some((1, 1000_i128.pow(n as u32)));
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
    Some(if exponent < 0 { (1, power) } else { (power, 1) })
}

/// Whether both are the same amount. Files also write amounts as numbers.
pub(super) fn are_equal(a: &Value, b: &Value) -> bool {
    let amount = |value: &Value| match value {
        Value::String(text) => parse(text),
        Value::Number(number) => parse(&number.to_string()),
        _ => None,
    };
    amount(a).is_some_and(|amount_of_a| Some(amount_of_a) == amount(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_same_amount_is_the_same_however_it_is_written() {
        for (a, b) in [
            (json!("1000m"), json!("1")),
            (json!(1), json!("1")),
            (json!(0.5), json!("500m")),
            (json!("1Gi"), json!("1024Mi")),
            (json!("1.5Gi"), json!("1536Mi")),
            (json!("1e3"), json!("1k")),
            (json!("1E"), json!("1000P")),
            (json!("100u"), json!("100000n")),
            (json!("-1"), json!("-1000m")),
        ] {
            assert!(are_equal(&a, &b), "{a} {b}");
        }
        assert!(!are_equal(&json!("1G"), &json!("1Gi")));
    }

    #[test]
    fn what_is_no_amount_equals_nothing() {
        for text in [
            "",
            "x",
            "1x",
            "m",
            "1.2.3",
            ".",
            "--1",
            "1e99",
            "99999999999999999999999999999999999999E",
        ] {
            assert_eq!(parse(text), None, "{text}");
            assert!(!are_equal(&json!(text), &json!(text)));
        }
    }
}
