//! Bars of ours beside the peers', as plain SVG.

use std::fmt::Write;

/// Some bars that share a scale.
pub struct Panel {
    /// What is measured, with its unit and which way is better.
    pub title: String,
    /// What was done, and each one's figure: who, and how much.
    pub groups: Vec<(String, Vec<(String, f64)>)>,
}

const WIDTH: usize = 860;
const LABEL: usize = 330;
const BAR: usize = 18;
const GAP: usize = 10;
const COLOURS: [(&str, &str); 3] = [("Margay", "#d9822b"), ("VPP", "#7a8ca3"), ("kernel", "#b9c2cc")];

/// Draws the panels, one below the other.
pub fn draw(panels: &[Panel]) -> String {
    let mut bars = String::new();
    let mut y = GAP;
    for panel in panels {
        y += 2 * BAR;
        text(&mut bars, GAP, y, "title", &panel.title);
        y += GAP;
        let most = panel
            .groups
            .iter()
            .flat_map(|group| &group.1)
            .map(|bar| bar.1)
            .fold(1e-9, f64::max);
        for (scenario, figures) in &panel.groups {
            text(&mut bars, GAP, y + BAR - 4, "label", scenario);
            for (who, figure) in figures {
                let length = (figure / most * (WIDTH - LABEL - 190) as f64).max(1.0);
                let colour = COLOURS
                    .iter()
                    .find(|colour| who.starts_with(colour.0))
                    .map_or("#999", |colour| colour.1);
                let _ = write!(
                    bars,
                    "<rect x=\"{LABEL}\" y=\"{y}\" width=\"{length:.0}\" height=\"{}\" fill=\"{colour}\"/>",
                    BAR - 2
                );
                let digits = if *figure < 10.0 { 2 } else { 0 };
                let end = LABEL + length as usize + 6;
                text(
                    &mut bars,
                    end,
                    y + BAR - 5,
                    "label",
                    &format!("{who} {figure:.digits$}"),
                );
                y += BAR;
            }
            y += GAP;
        }
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y}\" font-family=\"sans-serif\">\
         <style>.title{{font-size:15px;font-weight:bold}}.label{{font-size:12px}}</style>\
         <rect width=\"{WIDTH}\" height=\"{y}\" fill=\"white\"/>{bars}</svg>\n"
    )
}

fn text(svg: &mut String, x: usize, y: usize, class: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = write!(svg, "<text x=\"{x}\" y=\"{y}\" class=\"{class}\">{words}</text>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_is_the_greatest_figure() {
        let figures = vec![("Margay".to_owned(), 50.0), ("VPP (earlier)".to_owned(), 100.0)];
        let groups = vec![("a <b>".to_owned(), figures)];
        let svg = draw(&[Panel {
            title: "cycles".to_owned(),
            groups,
        }]);
        assert!(svg.contains("width=\"170\"") && svg.contains("width=\"340\""), "{svg}");
        assert!(svg.contains("a &lt;b>"));
    }
}
