//! The code of the README and of the book, compiled and run as tests. `tests/book.rs` holds that
//! no page is forgotten.

macro_rules! pages {
    ($($name:ident: $path:literal,)*) => {
        $(
            #[doc = include_str!(concat!("../", $path))]
            struct $name;
        )*
    };
}

pages! {
    Readme: "README.md",
    Introduction: "docs/introduction.md",
    GettingStarted: "docs/getting-started.md",
    Concepts: "docs/concepts.md",
    Guarantees: "docs/guarantees.md",
    GuaranteesPublish: "docs/guarantees/publish.md",
    GuaranteesDeliver: "docs/guarantees/deliver.md",
    GuaranteesOrder: "docs/guarantees/order.md",
    GuaranteesFail: "docs/guarantees/fail.md",
    GuaranteesCrash: "docs/guarantees/crash.md",
    GuaranteesSettle: "docs/guarantees/settle.md",
    GuaranteesDeploy: "docs/guarantees/deploy.md",
    GuaranteesDrain: "docs/guarantees/drain.md",
    GuaranteesLimits: "docs/guarantees/limits.md",
    HowToRetry: "docs/how-to/retry.md",
    HowToOrdering: "docs/how-to/ordering.md",
    HowToOutputs: "docs/how-to/outputs.md",
    HowToIdempotent: "docs/how-to/idempotent.md",
    HowToOutbox: "docs/how-to/outbox.md",
    HowToBroadcast: "docs/how-to/broadcast.md",
    HowToFilters: "docs/how-to/filters.md",
    HowToBatches: "docs/how-to/batches.md",
    HowToSchema: "docs/how-to/schema.md",
    HowToDelayed: "docs/how-to/delayed.md",
    HowToTwoVersions: "docs/how-to/two-versions.md",
    HowToDrain: "docs/how-to/drain.md",
    HowToMiddleware: "docs/how-to/middleware.md",
    HowToTesting: "docs/how-to/testing.md",
    HowToTail: "docs/how-to/tail.md",
    HowToRecord: "docs/how-to/record.md",
    HowToForeign: "docs/how-to/foreign.md",
    HowToHealth: "docs/how-to/health.md",
    HowToDoctor: "docs/how-to/doctor.md",
    HowToBench: "docs/how-to/bench.md",
    HowToOperate: "docs/how-to/operate.md",
    HowToAcl: "docs/how-to/acl.md",
    HowToDriver: "docs/how-to/driver.md",
    Operating: "docs/operating.md",
    ComingFromGossip: "docs/coming-from/gossip.md",
    ComingFromWatermill: "docs/coming-from/watermill.md",
    ComingFromNats: "docs/coming-from/nats.md",
    ComingFromCelery: "docs/coming-from/celery.md",
    ComingFromXreadgroup: "docs/coming-from/xreadgroup.md",
    Reliability: "docs/reliability.md",
    Benchmarks: "docs/benchmarks.md",
    Config: "docs/config.md",
}
