//! What outlives a step's own process: nothing of it changes the layer, the next step or the cache any more.

use stepwell_integration_tests::World;
use stepwell_integration_tests::children::nobody_stays;
use stepwell_integration_tests::way::each_tier;

/// Writers of all kinds (forked twice, in a session of their own, deaf to signals, stopped and woken again), each of which has
/// begun before the step ends; the next step sees whether anything still grows.
const DOCKERFILE: &str = "\
FROM @BUSYBOX@
RUN echo 'trap \"\" TERM HUP INT QUIT; while :; do echo tick >> /ticks/$1; echo tick >> /c/$1; done' > /write && mkdir /ticks
RUN --mount=type=cache,target=/c \\
    sh /write a & (sh /write b &) ; setsid sh /write c & (setsid sh -c 'sh /write d & sh /write e & wait' &) ; \\
    sh /write f & stopped=$!; until [ $(ls /ticks | wc -l) = 6 ]; do sleep 0.05; done; kill -STOP $stopped; exit 0
RUN --mount=type=cache,target=/c sum=$(cat /ticks/* /c/* | wc -c); sleep 1; [ $sum = $(cat /ticks/* /c/* | wc -c) ] && echo nothing grows
";

#[test]
fn the_layer_is_taken_when_nobody_writes_any_more() {
    each_tier(|way| {
        let world = World::new();
        world.dockerfile(DOCKERFILE);
        let built = way.built(&world, &[]);
        assert!(
            built.printed().iter().any(|l| l == "nothing grows"),
            "{way:?}:\n{}",
            built.err
        );
        nobody_stays(&world, &way.store());
    });
}
