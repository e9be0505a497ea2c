//! Progress is a pure function of the log: what may vary between two runs changes no byte of the trace.
#![allow(clippy::unwrap_used)] // Helpers of tests; a failed unwrap is a failed test.

mod support;

use orrery_protocol::AlignedBlock;
use orrery_runtime::progress::{Event, Progress};
use orrery_runtime::readings::rows;
use orrery_runtime::trace::{TraceWriter, decision_of};
use proptest::prelude::*;
use support::*;

const SECOND: i64 = 1_000_000_000;

/// A live run over blocks in the order of arrival. `waive[n]` names the stream given up after block `n`, if any.
struct Live {
    progress: Progress<Plate>,
    writer: TraceWriter,
    trace: Vec<Vec<u8>>,
    blocks: Vec<AlignedBlock>,
}

impl Live {
    fn new() -> Self {
        let writer = TraceWriter::new(&graph(), &layout());
        Self {
            progress: Progress::new(layout(), Plate::new()),
            writer,
            trace: vec![],
            blocks: vec![],
        }
    }

    fn push(&mut self, block: &AlignedBlock) {
        let stream = self.progress.layout().stream_index(&block.stream).unwrap();
        let rows = rows(block, &self.progress.layout().streams[stream].channels.clone());
        self.progress.push(stream, rows, block.watermark);
        self.run();
    }

    fn run(&mut self) {
        while let Some(tick) = self.progress.tick().unwrap() {
            let block = self.writer.block(&tick).unwrap();
            self.trace.push(block.encode().unwrap());
            self.blocks.push(block);
        }
    }

    fn restart(&mut self) {
        let (state, node) = self.progress.save().unwrap();
        self.progress = Progress::restore(layout(), Plate::new(), state, node.as_deref()).unwrap();
    }
}

fn canonical(board_blocks: &[AlignedBlock], air_blocks: &[AlignedBlock]) -> Live {
    let mut live = Live::new();
    board_blocks.iter().chain(air_blocks).for_each(|block| live.push(block));
    live
}

/// Board samples about every 100 ms with jitter, gaps of up to 8 s, and a heater that steps; air about every second.
fn logs() -> impl Strategy<Value = (Vec<Sample>, Vec<Sample>)> {
    let board = prop::collection::vec((1i64..180, prop::bool::weighted(0.02), 0u8..4, 20.0..40.0f64), 20..200);
    let air = prop::collection::vec((500i64..1500, 15.0..25.0f64), 5..40);
    (board, air).prop_map(|(board, air)| {
        let mut at = T0;
        let board = board.into_iter().map(|(step, gap, q, t)| {
            at += step * 1_000_000 + if gap { 8 * SECOND } else { 0 };
            Sample {
                at,
                values: vec![t, f64::from(q) * 20.0],
            }
        });
        let board: Vec<Sample> = board.collect();
        let mut at = T0 - 3 * SECOND;
        let air = air.into_iter().map(|(step, value)| {
            at += step * 1_000_000;
            Sample {
                at,
                values: vec![value],
            }
        });
        (board, air.collect())
    })
}

fn interleave(mut a: Vec<AlignedBlock>, mut b: Vec<AlignedBlock>, choices: &[bool]) -> Vec<AlignedBlock> {
    a.reverse();
    b.reverse();
    let mut choices = choices.iter().cycle();
    let mut all = Vec::new();
    while !a.is_empty() || !b.is_empty() {
        let first = *choices.next().unwrap_or(&true);
        let next = if first {
            a.pop().or_else(|| b.pop())
        } else {
            b.pop().or_else(|| a.pop())
        };
        all.extend(next);
    }
    all
}

fn end_of(samples: &[Sample]) -> i64 {
    samples.last().map_or(T0, |sample| sample.at) + 60 * SECOND
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn arrival_batching_and_restarts_change_no_byte(
        (board_rows, air_rows) in logs(),
        cuts in prop::collection::vec(1usize..9, 1..40),
        choices in prop::collection::vec(any::<bool>(), 1..60),
        restarts in prop::collection::vec(any::<bool>(), 1..60),
    ) {
        let end = end_of(&board_rows).max(end_of(&air_rows));
        let whole = [usize::MAX / 2];
        let expected = canonical(&cut(&board(), &BOARD, &board_rows, &whole, end), &cut(&air(), &AIR, &air_rows, &whole, end));
        prop_assert!(!expected.trace.is_empty());

        let pieces = interleave(
            cut(&board(), &BOARD, &board_rows, &cuts, end),
            cut(&air(), &AIR, &air_rows, &cuts, end),
            &choices,
        );
        let mut live = Live::new();
        for (block, restart) in pieces.iter().zip(restarts.iter().cycle()) {
            live.push(block);
            if *restart {
                live.restart();
            }
            live.push(block); // Delivered twice, as the bus may.
        }
        let same = live.trace.iter().zip(&expected.trace).take_while(|(a, b)| a == b).count();
        prop_assert!(
            same == expected.trace.len() && same == live.trace.len(),
            "row {same} of {} and {}: {:?}, {:?}",
            live.trace.len(),
            expected.trace.len(),
            live.blocks.get(same),
            expected.blocks.get(same)
        );
    }

    #[test]
    fn what_was_decided_live_is_repeated_from_the_trace(
        (board_rows, air_rows) in logs(),
        cuts in prop::collection::vec(1usize..9, 1..40),
        choices in prop::collection::vec(any::<bool>(), 1..60),
        waive in prop::collection::vec(prop::option::weighted(0.2, any::<bool>()), 1..60),
        events in prop::collection::vec(prop::option::weighted(0.05, prop::option::of(0.01..0.05f64)), 1..60),
    ) {
        let end = end_of(&board_rows).max(end_of(&air_rows));
        let boards = cut(&board(), &BOARD, &board_rows, &cuts, end);
        let airs = cut(&air(), &AIR, &air_rows, &cuts, end);
        let mut live = Live::new();
        let decisions = waive.iter().cycle().zip(events.iter().cycle());
        for (block, (waive, event)) in interleave(boards.clone(), airs.clone(), &choices).iter().zip(decisions) {
            live.push(block);
            match event {
                Some(Some(value)) => live.progress.request(Event::SetParameter { index: 0, value: *value }),
                Some(None) => live.progress.request(Event::Reset),
                None => {}
            }
            if let Some(of_board) = waive {
                live.progress.waive(&if *of_board { board() } else { air() });
                live.run();
            }
        }

        let mut replay = Live::new();
        for block in &live.blocks {
            let read = AlignedBlock::decode(&block.encode().unwrap()).unwrap();
            let (tick, decision) = decision_of(&read, replay.progress.layout()).unwrap();
            replay.progress.follow(tick, decision);
        }
        boards.iter().chain(&airs).for_each(|block| replay.push(block));
        let same = live.trace.iter().zip(&replay.trace).take_while(|(a, b)| a == b).count();
        let place = |blocks: &[AlignedBlock]| blocks.get(same).map(|block| (block.key(0), block.extra.clone()));
        prop_assert!(
            same == live.trace.len(),
            "row {same} of {}: live {:?}, replay {:?}",
            live.trace.len(),
            place(&live.blocks),
            place(&replay.blocks)
        );
    }
}

fn steady(from: i64, count: i64) -> Vec<Sample> {
    (0..count)
        .map(|n| Sample {
            at: from + n * 100_000_000 + 5_000_000,
            values: vec![30.0, 40.0],
        })
        .collect()
}

#[test]
fn a_long_silence_ends_the_run_and_the_next_row_starts_another() {
    let mut rows = steady(T0, 20);
    rows.extend(steady(T0 + 3600 * SECOND, 20));
    let end = T0 + 3610 * SECOND;
    let airs = [block(
        &air(),
        &AIR,
        &[Sample {
            at: T0 - 5 * SECOND,
            values: vec![20.0],
        }],
        0,
        end,
    )];
    let live = canonical(&cut(&board(), &BOARD, &rows, &[1], end), &airs);
    let boots: std::collections::BTreeSet<_> = live.blocks.iter().map(|block| block.key(0).boot).collect();
    assert_eq!(boots.len(), 2);
    // 2 s of rows, 3 s of patience, 2 s of rows, then 3 s of patience: not an hour of ticks.
    assert!(live.blocks.len() < 120, "{} ticks", live.blocks.len());
    let first_of_second = live
        .blocks
        .iter()
        .find(|block| block.time(0).0 > T0 + 3000 * SECOND)
        .unwrap();
    assert_eq!(first_of_second.key(0).sequence, 0);
    assert_eq!(first_of_second.value("t_sd", 0).map(|sd| sd < 0.2), Some(true));
}

#[test]
fn a_tick_waits_for_its_streams_and_says_for_which() {
    let mut live = Live::new();
    assert_eq!(live.progress.blocked().streams, [board()]);
    live.push(&block(&board(), &BOARD, &steady(T0, 5), 0, T0 + 500_000_000));
    let blocked = live.progress.blocked();
    assert!(live.trace.is_empty() && blocked.time_moves);
    assert_eq!(blocked.streams, [air()]);
    live.progress.waive(&air());
    live.run();
    assert_eq!(
        live.trace.len(),
        4,
        "ticks end at 200, 300, 400 and 500 ms after the first row"
    );
    assert!(live.blocks[0].extra["orrery.frontier"].contains("room/air=-!"));
}

#[test]
fn the_residual_is_measured_minus_twin_at_the_samples_own_time() {
    let live = canonical(
        &cut(&board(), &BOARD, &steady(T0, 10), &[1], T0 + SECOND),
        &[block(&air(), &AIR, &[], 0, T0 + SECOND)],
    );
    let first = &live.blocks[0];
    // 0.01·40 − 0.02·(30 − 20) = 0.2 °C/s; the sample lies 5 ms into the tick.
    let residual = first.value("t_residual", 0).unwrap();
    assert!((residual - (-0.2 * 0.005)).abs() < 1e-9, "{residual}");
}

#[test]
fn values_that_are_not_numbers_hold_the_last_one() {
    let mut rows = steady(T0, 10);
    rows[4].values[1] = f64::NAN;
    let live = canonical(
        &cut(&board(), &BOARD, &rows, &[1], T0 + SECOND),
        &[block(&air(), &AIR, &[], 0, T0 + SECOND)],
    );
    let plain = canonical(
        &cut(&board(), &BOARD, &steady(T0, 10), &[1], T0 + SECOND),
        &[block(&air(), &AIR, &[], 0, T0 + SECOND)],
    );
    assert_eq!(live.trace, plain.trace);
}
