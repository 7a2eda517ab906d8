//! Small charts as SVG: bars over time, one colour for each series. A chart has a title and a table with the same numbers for
//! readers who cannot see it.

use maud::{Markup, html};

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 96.0;

/// One series of a chart, in the order of the times.
pub(crate) struct Series {
    /// Name in the legend.
    pub(crate) name: &'static str,
    /// Class of the colour: `good`, `bad`, `wait` or `plain`.
    pub(crate) class: &'static str,
    /// Values, one for each time.
    pub(crate) values: Vec<u64>,
}

impl Series {
    fn total(&self) -> u64 {
        self.values.iter().fold(0, |sum, value| sum.saturating_add(*value))
    }
}

/// Renders stacked bars, one for each time.
pub(crate) fn bars(title: &str, times: &[String], series: &[Series]) -> Markup {
    let heights: Vec<Vec<u64>> = (0..times.len())
        .map(|index| series.iter().map(|one| one.values.get(index).copied().unwrap_or(0)).collect())
        .collect();
    let highest = heights.iter().map(|bar| bar.iter().sum::<u64>()).max().unwrap_or(0);
    let width = WIDTH / f64::from(u32::try_from(times.len().max(1)).unwrap_or(u32::MAX));
    html! {
        figure.chart {
            figcaption {
                (title)
                ul.legend {
                    @for one in series {
                        li { span class={ "dot " (one.class) } {} (one.name) " " strong { (one.total()) } }
                    }
                }
            }
            svg role="img" aria-label=(summary(title, series)) viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" {
                line.axis x1="0" x2=(WIDTH) y1=(HEIGHT - 0.5) y2=(HEIGHT - 0.5) {}
                @for (index, bar) in heights.iter().enumerate() {
                    @for (value, rect) in bar.iter().zip(rectangles(bar, highest.max(1))) {
                        @if *value > 0 {
                            rect class=(series.get(rect.series).map_or("plain", |one| one.class))
                                x=(round(position(index, width) + width * 0.1)) width=(round(width * 0.8))
                                y=(round(rect.y)) height=(round(rect.height)) {
                                title { (times.get(index).map_or("", String::as_str)) ": " (value) }
                            }
                        }
                    }
                }
            }
            p.scale.small { span { (times.iter().find(|time| !time.is_empty()).map_or("", String::as_str)) } span { @if highest == 0 { "nothing yet" } @else { "highest " (highest) } } span { (times.last().map_or("", String::as_str)) } }
        }
    }
}

/// Renders one horizontal bar beside a number of a table.
pub(crate) fn share(class: &str, value: u64, highest: u64) -> Markup {
    let width = (number(value) / number(highest.max(1)) * 100.0).clamp(1.0, 100.0);
    html! {
        svg.share viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true" focusable="false" {
            rect class=(class) x="0" y="0" width=(round(width)) height="8" {}
        }
    }
}

struct Rectangle {
    series: usize,
    y: f64,
    height: f64,
}

/// Returns the rectangles of a bar, from the bottom up.
fn rectangles(bar: &[u64], highest: u64) -> Vec<Rectangle> {
    let mut below = 0.0;
    let scale = (HEIGHT - 4.0) / number(highest);
    let rectangle = |(series, value): (usize, &u64)| {
        let height = number(*value) * scale;
        below += height;
        Rectangle { series, y: HEIGHT - below, height }
    };
    bar.iter().enumerate().map(rectangle).collect()
}

fn position(index: usize, width: f64) -> f64 {
    f64::from(u32::try_from(index).unwrap_or(u32::MAX)) * width
}

#[expect(clippy::cast_precision_loss, reason = "a chart needs no more precision")]
fn number(value: u64) -> f64 {
    value as f64
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn summary(title: &str, series: &[Series]) -> String {
    let totals: Vec<String> =
        series.iter().map(|one| format!("{} {}", one.name, one.total())).collect();
    format!("{title}: {}", totals.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_of_all_series_fill_the_height_and_name_their_sums() {
        let series = [
            Series { name: "new", class: "good", values: vec![1, 3] },
            Series { name: "copies", class: "wait", values: vec![1, 1] },
        ];
        let chart = bars("Webhooks", &["10:00".into(), "11:00".into()], &series).into_string();
        assert!(chart.contains("aria-label=\"Webhooks: new 4, copies 2\""), "{chart}");
        assert_eq!(chart.matches("<rect").count(), 4, "{chart}");
        let tallest: f64 = rectangles(&[3, 1], 4).iter().map(|rectangle| rectangle.height).sum();
        assert!((tallest - (HEIGHT - 4.0)).abs() < 0.001);
    }

    #[test]
    fn chart_without_values_is_empty() {
        let chart = bars("None", &[], &[]).into_string();
        assert!(!chart.contains("<rect") && chart.contains("nothing yet"), "{chart}");
    }
}
