//! Tables for people: plain columns, no lines, nothing cut off.

use comfy_table::{CellAlignment, ContentArrangement, Table};

/// Columns with a head. A head that begins with `>` is of numbers and is set to the right.
pub fn table(heads: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(heads.iter().map(|head| head.trim_start_matches('>')));
    for row in rows {
        table.add_row(row);
    }
    for (column, head) in table.column_iter_mut().zip(heads) {
        column.set_padding((0, 2));
        if head.starts_with('>') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

/// Label and value, one a line; empty values are left out.
pub fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
    let shown = facts.iter().filter(|(_, value)| !value.is_empty());
    let indent = format!("\n{}", " ".repeat(width + 2));
    let lines = shown.map(|(label, value)| format!("{label:width$}  {}", value.replace('\n', &indent)));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_their_heads_and_numbers_to_the_right() {
        let text = table(
            &["ID", ">SIZE", "STATE"],
            [vec!["a".into(), "1".into(), "ok".into()], vec!["long id".into(), "1000".into(), String::new()]],
        );
        assert_eq!(text, "ID       SIZE  STATE\na           1  ok\nlong id  1000");
    }

    #[test]
    fn facts_without_a_value_are_left_out_and_longer_ones_are_indented() {
        assert_eq!(
            facts(&[("id", "x".into()), ("gone", String::new()), ("files", "a\nb".into())]),
            "id     x\nfiles  a\n       b"
        );
    }
}
