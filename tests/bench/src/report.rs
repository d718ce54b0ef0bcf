//! What was measured, as tables for people and as JSON for programs.

use std::{fmt, fs, iter, thread};

use serde_json::{Map, Value, json};

use crate::cell::{Cell, Work};
use crate::column::{Column, Footprint};
use crate::window::Speed;

/// What a measurement consists of.
#[derive(PartialEq)]
struct Quantity {
    /// For programs.
    key: &'static str,
    name: &'static str,
    unit: &'static str,
    decimals: usize,
}

/// Of calls, or of whole sessions.
const SPEED: [Quantity; 5] = [
    Quantity { key: "per_second", name: "calls/s", unit: "", decimals: 0 },
    Quantity { key: "p50_us", name: "p50", unit: " µs", decimals: 1 },
    Quantity { key: "p99_us", name: "p99", unit: " µs", decimals: 1 },
    Quantity { key: "cpu_us", name: "CPU", unit: " µs", decimals: 2 },
    Quantity { key: "client_cpu_us", name: "client's CPU", unit: " µs", decimals: 2 },
];
const CALLS: usize = 0;
const P50: usize = 1;
const CPU: usize = 3;

const MEMORY: [Quantity; 3] = [
    Quantity { key: "rss_kib", name: "RSS", unit: " KiB", decimals: 0 },
    Quantity { key: "private_dirty_kib", name: "Private_Dirty", unit: " KiB", decimals: 0 },
    Quantity { key: "session_kib", name: "a session", unit: " KiB", decimals: 1 },
];

impl From<Speed> for Vec<f64> {
    fn from(speed: Speed) -> Self {
        vec![speed.per_second, speed.p50, speed.p99, speed.cpu, speed.own_cpu]
    }
}

impl From<Footprint> for Vec<f64> {
    fn from(footprint: Footprint) -> Self {
        vec![footprint.idle.resident, footprint.idle.private_dirty, footprint.session]
    }
}

/// All that was measured in one cell.
pub(crate) struct Results {
    pub(crate) cell: Cell,
    /// For each column and each round the quantities of that kind of work; no round where the column has no such work.
    pub(crate) columns: Vec<Vec<Vec<f64>>>,
}

pub(crate) struct Report {
    about: String,
    pub(crate) columns: Vec<Column>,
    pub(crate) cells: Vec<Results>,
}

/// How many times as much of a quantity a column has as others together, in each round.
struct Ratio<'a> {
    quantity: &'a Quantity,
    others: Vec<usize>,
    spread: Spread,
}

/// The rounds' median, least and greatest.
struct Spread {
    median: f64,
    least: f64,
    greatest: f64,
}

impl Results {
    fn quantities(&self) -> &'static [Quantity] {
        match self.cell.work {
            Work::Calls { .. } | Work::Churn { .. } => &SPEED,
            Work::Memory { .. } => &MEMORY,
        }
    }

    /// One quantity of a column, in all rounds.
    fn all(&self, column: usize, quantity: usize) -> Vec<f64> {
        self.columns[column].iter().map(|round| round[quantity]).collect()
    }

    /// `None` where one of them was not measured.
    fn ratio(&self, column: usize, quantity: usize, others: Vec<usize>) -> Option<Ratio<'_>> {
        let of_round = |(round, own): (usize, &Vec<f64>)| {
            let of_others = others.iter().map(|&other| Some(self.columns[other].get(round)?[quantity]));
            Some(own[quantity] / of_others.sum::<Option<f64>>()?)
        };
        let ratios = self.columns[column].iter().enumerate().map(of_round).collect::<Option<Vec<_>>>()?;
        Some(Ratio { quantity: &self.quantities()[quantity], spread: Spread::of(ratios)?, others })
    }
}

impl Spread {
    /// `None` where there is nothing.
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (least, greatest) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Some(Self { median, least, greatest })
    }
}

impl Report {
    /// Nothing was measured yet.
    pub(crate) fn new(cells: Vec<Cell>, columns: Vec<Column>, rounds: usize) -> Self {
        let empty = |cell| Results { cell, columns: columns.iter().map(|_| Vec::new()).collect() };
        let cells = cells.into_iter().map(empty).collect();
        let cores = thread::available_parallelism().map_or(0, usize::from);
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').next().unwrap_or_default();
        Self { about: format!("rounds: {rounds}; cores: {cores}; load before: {load}"), columns, cells }
    }

    fn bridges(&self) -> impl DoubleEndedIterator<Item = usize> {
        (0..self.columns.len()).filter(|&column| matches!(self.columns[column], Column::Bridge(_)))
    }

    /// How one bridge stands to bare pipes, to bare HTTP, and to the last bridge unless it is that itself.
    fn ratios<'a>(&self, results: &'a Results, bridge: usize) -> Vec<Ratio<'a>> {
        let beside = match results.cell.work {
            Work::Memory { .. } => Vec::new(),
            _ => vec![
                (CALLS, vec![Column::FLOOR]),
                (CALLS, vec![Column::PIPE]),
                (P50, vec![Column::PIPE, Column::FLOOR]),
            ],
        };
        let last = self.bridges().next_back().filter(|&last| last != bridge);
        let compared: &[usize] = match results.cell.work {
            Work::Memory { .. } => &[0, 1, 2],
            _ => &[CALLS, P50, CPU],
        };
        let to_last =
            last.into_iter().flat_map(|last| compared.iter().map(move |&quantity| (quantity, vec![last])));
        let all = beside.into_iter().chain(to_last);
        all.filter_map(|(quantity, others)| results.ratio(bridge, quantity, others)).collect()
    }

    fn names(&self, columns: &[usize]) -> Vec<String> {
        columns.iter().map(|&column| self.columns[column].to_string()).collect()
    }

    pub(crate) fn json(&self) -> Value {
        let mut cells = Map::new();
        for results in &self.cells {
            let mut columns = Map::new();
            for (index, column) in self.columns.iter().enumerate() {
                let rounds = results.quantities().iter().enumerate();
                let rounds =
                    rounds.map(|(at, quantity)| (quantity.key.to_owned(), json!(results.all(index, at))));
                columns.insert(column.to_string(), json!({ "rounds": rounds.collect::<Map<_, _>>() }));
            }
            for bridge in self.bridges() {
                let ratios =
                    self.ratios(results, bridge).into_iter().map(|Ratio { quantity, others, spread }| {
                        json!({
                            "quantity": quantity.key, "to": self.names(&others),
                            "median": spread.median, "least": spread.least, "greatest": spread.greatest,
                        })
                    });
                columns[&self.columns[bridge].to_string()]["ratios"] = ratios.collect();
            }
            cells.insert(results.cell.name.to_owned(), Value::Object(columns));
        }
        json!({ "about": self.about, "cells": cells })
    }

    /// The medians of all that was measured.
    fn values(&self, cells: &[&Results]) -> Vec<Row> {
        let mut rows = Vec::new();
        for results in cells {
            if rows.is_empty() {
                let names =
                    results.quantities().iter().map(|quantity| quantity.name.to_owned() + quantity.unit);
                rows.push(Row::new("median", "", names));
            }
            for (index, column) in self.columns.iter().enumerate() {
                let value = |(at, quantity): (usize, &Quantity)| {
                    let Spread { median, .. } = Spread::of(results.all(index, at))?;
                    let decimals = quantity.decimals;
                    Some(if median.is_nan() { "–".to_owned() } else { format!("{median:.decimals$}") })
                };
                let values = results.quantities().iter().enumerate().filter_map(value);
                rows.push(Row::new(results.cell.name, &column.to_string(), values));
            }
        }
        rows.retain(Row::has_values);
        rows
    }

    /// The ratios of all bridges.
    fn comparison(&self, cells: &[&Results]) -> Vec<Row> {
        let mut rows = Vec::new();
        for results in cells {
            for bridge in self.bridges() {
                let ratios = self.ratios(results, bridge);
                if rows.is_empty() {
                    let names = ratios.iter().map(|Ratio { quantity, others, .. }| {
                        format!("{} : {}", quantity.name, self.names(others).join(" + "))
                    });
                    rows.push(Row::new("ratio (least to greatest)", "", names));
                }
                let values =
                    ratios.iter().map(|Ratio { spread: Spread { median, least, greatest }, .. }| {
                        format!("{median:.2} ({least:.2} to {greatest:.2})")
                    });
                rows.push(Row::new(results.cell.name, &self.columns[bridge].to_string(), values));
            }
        }
        rows.retain(Row::has_values);
        rows
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.about)?;
        for quantities in [&SPEED[..], &MEMORY] {
            let of_kind = |results: &&Results| results.quantities() == quantities;
            let cells = self.cells.iter().filter(of_kind).collect::<Vec<_>>();
            for rows in [self.values(&cells), self.comparison(&cells)] {
                write_table(f, &rows)?;
            }
        }
        Ok(())
    }
}

/// The name of a cell, that of a column, and values.
struct Row(Vec<String>);

impl Row {
    fn new(cell: &str, column: &str, values: impl Iterator<Item = String>) -> Self {
        Self([cell, column].map(str::to_owned).into_iter().chain(values).collect())
    }

    fn has_values(&self) -> bool {
        self.0.len() > 2
    }
}

/// Names to the left, values to the right.
fn write_table(f: &mut fmt::Formatter<'_>, rows: &[Row]) -> fmt::Result {
    let mut widths = Vec::new();
    for Row(texts) in rows {
        widths.resize(widths.len().max(texts.len()), 0);
        for (width, text) in iter::zip(&mut widths, texts) {
            *width = text.chars().count().max(*width);
        }
    }
    if !rows.is_empty() {
        writeln!(f)?;
    }
    for Row(texts) in rows {
        let mut line = String::new();
        for (at, (text, &width)) in iter::zip(texts, &widths).enumerate() {
            line += &if at < 2 { format!("{text:width$}  ") } else { format!("{text:>width$}  ") };
        }
        writeln!(f, "{}", line.trim_end())?;
    }
    Ok(())
}
