//! Bar charts in SVG.

use std::fmt::Write as _;

/// A bar with its label, its value and the value as text.
pub type Bar = (String, f64, String);

const ROW: usize = 26;
const LEFT: usize = 250;
const WIDTH: usize = 420;

/// Draws bars below each other. Colours are readable on light and on dark pages.
pub fn bars(title: &str, bars: &[Bar]) -> String {
    let most = bars
        .iter()
        .map(|bar| bar.1)
        .fold(f64::MIN_POSITIVE, f64::max);
    let (height, width) = ((bars.len() + 2) * ROW, LEFT + WIDTH + 110);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\" fill=\"#808080\">\n\
         <text x=\"{LEFT}\" y=\"18\" font-weight=\"bold\">{title}</text>\n"
    );
    for (row, (label, value, text)) in bars.iter().enumerate() {
        let y = (row + 1) * ROW;
        let length = value / most * f64::from(u32::try_from(WIDTH).unwrap_or_default());
        let (base, left) = (y + 17, LEFT - 8);
        let _ = writeln!(
            svg,
            "<text x=\"{left}\" y=\"{base}\" text-anchor=\"end\">{label}</text>\
             <rect x=\"{LEFT}\" y=\"{}\" width=\"{length:.1}\" height=\"18\" fill=\"#3b7dd8\"/>\
             <text x=\"{:.1}\" y=\"{base}\">{text}</text>",
            y + 3,
            length + f64::from(u32::try_from(LEFT + 6).unwrap_or_default()),
        );
    }
    svg + "</svg>\n"
}
