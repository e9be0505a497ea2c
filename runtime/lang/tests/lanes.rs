//! Two plans at once, one in each lane: each with the bits that it has alone.

#![allow(clippy::unwrap_used)]

mod common;

use common::{CTX, Machine, bits, cranelift, pulley, until};
use orrery_lang::abi::{self, Initialise, InputTable, Layout, Method, Plan, Rows, Seeds, Status, lanes};
use orrery_lang::{Meta, Options, compile};
use wasmtime::{Engine, Instance, Memory, Module, Store, TypedFunc};

struct Pair {
    meta: Meta,
    store: Store<()>,
    memory: Memory,
    solve: TypedFunc<u32, u32>,
}

impl Pair {
    fn new(engine: &Engine, source: &str) -> Pair {
        Pair::with(engine, source, Options::default())
    }

    fn with(engine: &Engine, source: &str, options: Options) -> Pair {
        let options = Options {
            two_lanes: true,
            ..options
        };
        let compiled =
            compile(source, "test.mo", &options).unwrap_or_else(|errors| panic!("{}", common::render(&errors)));
        assert_eq!(compiled.meta.lanes, 2);
        let module = Module::new(engine, &compiled.wasm).expect("a valid module");
        let mut store = Store::new(engine, ());
        let instance = Instance::new(&mut store, &module, &[]).expect("a module without imports");
        Pair {
            meta: compiled.meta,
            memory: instance.get_memory(&mut store, abi::MEMORY).expect("the memory"),
            solve: instance.get_typed_func(&mut store, abi::SOLVE).expect("solve"),
            store,
        }
    }

    fn image(&mut self, lane: usize, bytes: usize) -> Vec<u8> {
        let mut image = vec![0; bytes];
        lanes::read(self.memory.data(&self.store), lane, 0, &mut image).unwrap();
        image
    }

    fn put(&mut self, lane: usize, image: &[u8]) {
        lanes::write(self.memory.data_mut(&mut self.store), lane, 0, image).unwrap();
    }

    fn call(&mut self) {
        self.solve.call(&mut self.store, CTX).expect("no trap");
    }

    /// Runs both plans; what each lane saw afterwards.
    fn run(&mut self, plans: &[Plan; 2]) -> [(Status, Rows, Vec<u8>); 2] {
        let layout = Layout::for_plan(&self.meta, &plans[0]);
        let bytes = (CTX + layout.bytes) as usize;
        let wanted = (2 * bytes as u64).div_ceil(u64::from(abi::PAGE));
        let present = self.memory.size(&self.store);
        if wanted > present {
            self.memory.grow(&mut self.store, wanted - present).expect("memory");
        }
        let meta = self.meta.clone();
        for (lane, plan) in plans.iter().enumerate() {
            let mut image = self.image(lane, bytes.next_multiple_of(8));
            abi::write_plan(&mut image, CTX, &meta, plan).expect("a good plan");
            self.put(lane, &image);
        }
        self.call();
        [0, 1].map(|lane| {
            let image = self.image(lane, bytes.next_multiple_of(8));
            let status = abi::read_status(&image, CTX, &meta);
            let rows = abi::read_outputs(&image, CTX, &meta, &layout);
            (status, rows, abi::snapshot(&image, CTX, &meta))
        })
    }
}

/// Each lane of pairs of plans against the same plan alone.
fn same_bits(engine: &Engine, source: &str, pairs: &[[Plan; 2]], what: &str) {
    let mut pair = Pair::new(engine, source);
    let mut alone = Machine::on(engine, common::build(source));
    for plans in pairs {
        let together = pair.run(plans);
        for (lane, plan) in plans.iter().enumerate() {
            let (status, rows) = alone.run(plan);
            let (found, values, snapshot) = &together[lane];
            let what = format!("{what}, {:?}, lane {lane}", plan.method);
            // As text, for a NaN equals no other.
            assert_eq!(format!("{found:?}"), format!("{status:?}"), "{what}: status");
            assert_eq!(bits(values), bits(&rows), "{what}: rows");
            assert_eq!(*snapshot, alone.snapshot(), "{what}: persistent bytes");
        }
    }
}

/// Parameters a little off in one lane and more in the other.
fn members(source: &str, plan: &Plan) -> [Plan; 2] {
    let meta = common::build(source).meta;
    [1.01, 0.93].map(|factor| {
        let parameters = meta.parameters.iter().enumerate();
        let parameters = parameters.map(|(index, var)| {
            let value = var.default * factor;
            let value = var.min.map_or(value, |min| value.max(min));
            (index, var.max.map_or(value, |max| value.min(max)))
        });
        Plan {
            initialise: Some(Initialise {
                parameters: parameters.collect(),
                states: Vec::new(),
            }),
            ..plan.clone()
        }
    })
}

const SHIPPED: [(&str, &str, f64); 9] = [
    ("ball", include_str!("../../../deploy/models/bouncing_ball.mo"), 3.0),
    (
        "Lotka–Volterra",
        include_str!("../../../deploy/models/lotka_volterra.mo"),
        20.0,
    ),
    ("Robertson", include_str!("../../../deploy/models/robertson.mo"), 100.0),
    (
        "van der Pol",
        include_str!("../../../deploy/models/van_der_pol.mo"),
        20.0,
    ),
    ("battery", include_str!("../../../deploy/models/battery_2rc.mo"), 4000.0),
    ("CSTR", include_str!("../../../deploy/models/cstr.mo"), 10.0),
    ("doses", include_str!("../../../deploy/models/pk1.mo"), 30.0),
    ("vehicle", include_str!("../../../deploy/models/bicycle.mo"), 5.0),
    ("TCLab", include_str!("../../../deploy/models/tclab.mo"), 500.0),
];

fn all_methods(source: &str, seconds: f64, but: usize) -> Vec<[Plan; 2]> {
    let methods = [
        Method::Tsit5,
        Method::Rk4 { steps_per_tick: 300 },
        Method::Rodas5p,
        Method::Esdirk,
        Method::Auto,
    ];
    let plan = |method: &Method| Plan {
        method: *method,
        event_rows: 64,
        ..until(seconds, 11)
    };
    let pairs = methods[but..].iter().map(|method| members(source, &plan(method)));
    pairs.collect()
}

#[test]
fn every_shipped_model_under_every_method() {
    for (name, source, seconds) in SHIPPED {
        // The explicit methods do not come far with a stiff model.
        let but = if name == "Robertson" { 2 } else { 0 };
        same_bits(&cranelift(), source, &all_methods(source, seconds, but), name);
    }
}

#[test]
fn lanes_that_part() {
    // One lane is done with an event that the other does not have; one fails and the other goes on; both search.
    let loops = "model P parameter Real p = 1; Real x(start=p, fixed=true); Real z(start=1); discrete Integer n(start=0);\
        equation z^3 + z = x; der(x) = -z; when z < 0.5 then reinit(x, 2*p); n = pre(n) + 1; end when; end P;";
    let fails = "model F parameter Real p = 1; Real x(start=0, fixed=true); equation der(x) = p*sqrt(1.5 - x); end F;";
    for (source, values) in [
        (loops, [1.0, 0.4]),
        (fails, [1.0, 4.0]),
        (fails, [0.2, 0.1]),
        (fails, [3.0, 2.5]),
    ] {
        let pairs: Vec<[Plan; 2]> = all_methods(source, 3.0, 0)
            .into_iter()
            .map(|mut plans| {
                for (plan, value) in plans.iter_mut().zip(values) {
                    plan.initialise.as_mut().unwrap().parameters[0].1 = value;
                }
                plans
            })
            .collect();
        same_bits(&cranelift(), source, &pairs, "parted");
        same_bits(&pulley(), source, &pairs, "parted, interpreted");
    }
}

#[test]
fn inputs_over_time_in_both_lanes() {
    let source = "model I parameter Real k = 2; input Real u(start=0); Real x(start=0, fixed=true); equation der(x) = -k*x + u; end I;";
    for mode in [abi::InputMode::Hold, abi::InputMode::Linear] {
        let mut plans = members(source, &until(1.0, 5));
        for (lane, plan) in plans.iter_mut().enumerate() {
            let value = 1.0 + lane as f64;
            plan.inputs = vec![InputTable {
                mode,
                knots: vec![
                    (0, value),
                    (400_000_000, 2.0 * value),
                    (900_000_000 - 1000 * lane as i64, 0.5),
                ],
            }];
        }
        same_bits(&cranelift(), source, &[plans], "inputs");
    }
}

#[test]
fn gradients_in_both_lanes() {
    let source = include_str!("../../../deploy/models/bouncing_ball.mo");
    let plan = Plan {
        tape_bytes: 1 << 18,
        ..until(2.0, 5)
    };
    let plans = members(source, &plan);
    let mut pair = Pair::new(&cranelift(), source);
    pair.run(&plans);
    let meta = pair.meta.clone();
    let layout = Layout::for_plan(&meta, &plan);
    let bytes = ((CTX + layout.bytes) as usize).next_multiple_of(8);
    let seeds = Seeds {
        rows: vec![1.0; layout.rows as usize * meta.columns.len()],
        last: Vec::new(),
    };
    for lane in 0..2 {
        let mut image = pair.image(lane, bytes);
        abi::write_seeds(&mut image, CTX, &meta, &layout, &seeds).unwrap();
        pair.put(lane, &image);
    }
    pair.call();
    let mut alone = Machine::on(&cranelift(), common::build(source));
    for (lane, plan) in plans.iter().enumerate() {
        alone.good(plan);
        abi::write_seeds(alone.memory.data_mut(&mut alone.store), CTX, &meta, &layout, &seeds).unwrap();
        alone.call();
        let expected = abi::read_gradient(alone.memory.data(&alone.store), CTX, &meta, plan, &layout);
        let found = abi::read_gradient(&pair.image(lane, bytes), CTX, &meta, plan, &layout);
        assert_eq!(found, expected, "lane {lane}");
        assert!(expected.parameters.iter().any(|share| *share != 0.0));
    }
}

#[test]
fn second_derivatives_in_both_lanes() {
    let source = "model P parameter Real p = 1; Real x(start=p, fixed=true); Real z(start=1); discrete Integer n(start=0);\
        equation z^3 + z = x; der(x) = -z; when z < 0.5 then reinit(x, 2*p); n = pre(n) + 1; end when; end P;";
    let options = Options {
        second_derivatives: true,
        ..Options::default()
    };
    for method in [Method::Tsit5, Method::Rodas5p, Method::Esdirk] {
        let plan = Plan {
            method,
            tape_bytes: 1 << 18,
            ..until(2.0, 5)
        };
        let plans = members(source, &plan);
        let mut pair = Pair::with(&cranelift(), source, options.clone());
        pair.run(&plans);
        let meta = pair.meta.clone();
        let layout = Layout::for_plan(&meta, &plan);
        let bytes = ((CTX + layout.bytes) as usize).next_multiple_of(8);
        let line = abi::Gradient {
            parameters: vec![1.0],
            states: vec![0.5; meta.carried() as usize],
            inputs: Vec::new(),
        };
        for lane in 0..2 {
            let mut image = pair.image(lane, bytes);
            abi::write_direction(&mut image, CTX, &meta, &layout, &line).unwrap();
            abi::write_sweep(&mut image, CTX, abi::Sweep::Second, abi::Segment::default());
            pair.put(lane, &image);
        }
        pair.call();
        let mut alone = Machine::on(&cranelift(), common::build_with(source, &options));
        for (lane, plan) in plans.iter().enumerate() {
            let expected = common::along(&mut alone, plan, &line);
            let [first, second] = abi::read_second_tangents(&pair.image(lane, bytes), CTX, &meta, &layout);
            assert_eq!(
                (first, second),
                (expected.first, expected.second),
                "{method:?}, lane {lane}"
            );
            assert!(expected.status.events > 0);
        }
    }
}
