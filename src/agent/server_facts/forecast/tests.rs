use super::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const ROUND: Duration = Duration::from_secs(15);
/// Nothing is known of the target, and archiving fails.
const HELD: Room = Room { free: 100 * GIB, target: 0, held: true };

/// A window over these sizes in MiB, 15 seconds apart.
fn window(sizes: impl IntoIterator<Item = u64>) -> Window {
    let (mut window, mut at) = (Window::default(), Instant::now());
    for mib in sizes {
        window.add(Sample { at, bytes: mib * MIB });
        at += ROUND;
    }
    window
}

/// The forecast after each of these sizes.
fn course(sizes: impl IntoIterator<Item = u64>, room: &Room) -> Vec<Option<u64>> {
    let sizes: Vec<u64> = sizes.into_iter().collect();
    let after = |n| window(sizes[..n].iter().copied()).full_in(room).map(|left| left.as_secs());
    (1..=sizes.len()).map(after).collect()
}

fn about(found: Option<Duration>, seconds: u64) {
    let found = found.expect("a forecast").as_secs();
    assert!(found * 10 >= seconds * 9 && found * 10 <= seconds * 11, "{found} s, expected {seconds} s");
}

#[test]
fn what_does_not_grow_is_never_full() {
    assert_eq!(course([500; 300], &HELD), [None; 300]);
    // Files are recycled: up and down by a segment.
    assert_eq!(course((0..300).map(|n| 500 + n % 2 * 16), &HELD), [None; 300]);
}

#[test]
fn steady_growth_is_told_after_two_minutes_and_right() {
    // 100 MiB in 15 seconds: 100 GiB in 15360 seconds.
    let told = course((0..100).map(|n| 500 + n * 100), &HELD);
    assert!(
        told[..8].iter().all(Option::is_none) && told[8..].iter().all(|t| *t == Some(15_360)),
        "{told:?}"
    );
    let nearly = Room { free: 200 * MIB, ..HELD };
    about(window((0..9).map(|n| 500 + n * 100)).full_in(&nearly), 30);
    let full = Room { free: 0, ..HELD };
    assert_eq!(window((0..9).map(|n| 500 + n * 100)).full_in(&full), Some(Duration::ZERO));
}

#[test]
fn slow_growth_by_a_segment_every_five_minutes_shows_in_an_hour() {
    let found = course((0..400).map(|n| 500 + n / 20 * 16), &HELD);
    let expected = 100 * 1024 / 16 * 300;
    assert!(
        found[240..].iter().all(|t| t.is_some_and(|t| t > expected / 2 && t < expected * 2)),
        "{found:?}"
    );
}

#[test]
fn a_burst_is_no_growth_that_lasts() {
    let single = (0..300).map(|n| if n < 50 { 500 } else { 4500 });
    assert_eq!(course(single, &HELD), [None; 300]);
    // A minute long.
    let minute = (0..300u64).map(|n| 500 + n.saturating_sub(50).min(4) * 1000);
    assert_eq!(course(minute, &HELD), [None; 300]);
}

#[test]
fn growth_that_stops_fades_and_what_shrinks_is_not_full_soon() {
    // Ten minutes of growth, then nothing: PostgreSQL removes files at its next checkpoint only.
    let mut sizes: Vec<u64> = (0..40).map(|n| 500 + n * 100).collect();
    sizes.extend([4400; 40]);
    let told = course(sizes.clone(), &HELD);
    assert_eq!(told[39], Some(15_360));
    assert!(told[45].is_none_or(|left| left > 5 * 15_360), "{:?}", told[45]);
    assert!(told[79].is_none(), "{:?}", told[79]);
    // Archiving goes on, and the next checkpoint removes what is archived.
    let mut sizes: Vec<u64> = (0..240).map(|n| 500 + n * 100).collect();
    sizes.extend([20_000, 19_000, 19_000, 18_000]);
    assert_eq!(window(sizes).full_in(&HELD), None);
}

#[test]
fn growth_up_to_the_target_counts_only_while_archiving_holds_files_or_the_disk_is_too_small() {
    let growing = || window((0..20).map(|n| 500 + n * 100));
    let settles = Room { free: 100 * GIB, target: 16 * GIB, held: false };
    assert_eq!(growing().full_in(&settles), None);
    about(growing().full_in(&Room { held: true, ..settles }), 15_360);
    about(growing().full_in(&Room { target: 200 * GIB, ..settles }), 15_360);
    about(growing().full_in(&Room { target: GIB, ..settles }), 15_360);
}

#[test]
fn another_clock_and_a_new_agent_begin_with_nothing() {
    assert_eq!(Window::default().full_in(&HELD), None);
    let mut window = window((0..100).map(|n| 500 + n * 100));
    about(window.full_in(&HELD), 15_360);
    let first = window.0[0];
    for _ in 0..2 {
        window.add(first);
        assert_eq!(window.full_in(&HELD), None);
        assert_eq!(window.0.len(), 1);
    }
}

#[test]
fn a_window_holds_an_hour() {
    assert_eq!(window(0..10_000).0.len(), 241);
}
