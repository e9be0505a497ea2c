//! Two plans at once, one in each lane: each with the bits that it has alone.

#![allow(clippy::unwrap_used)]

mod common;

use common::{CTX, Machine, bits, cranelift, pulley, until};
use orrery_lang::abi::{self, Initialise, InputTable, Layout, Method, Plan, Rows, Seeds, Status, lanes};
use orrery_lang::{Options, compile};
use wasmtime::{Engine, Instance, Memory, Module, Store, TypedFunc};

struct Pair {
    meta: orrery_lang::Meta,
    store: Store<()>,
    memory: Memory,
    solve: TypedFunc<u32, u32>,
}

impl Pair {
    fn new(engine: &Engine, source: &str) -> Pair {
        let options = Options {
            two_lanes: true,
            ..Options::default()
        };
        let compiled = compile(source, "test.mo", &options).unwrap_or_else(|errors| panic!("{}", common::render(&errors)));
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

/// Each lane of a pair of plans against the same plan alone.
fn same_bits(engine: &Engine, source: &str, plans: &[Plan; 2], what: &str) {
    let mut pair = Pair::new(engine, source);
    let together = pair.run(plans);
    for (lane, plan) in plans.iter().enumerate() {
        let mut alone = Machine::on(engine, common::build(source));
        let (status, rows) = alone.run(plan);
        let (found, values, snapshot) = &together[lane];
        assert_eq!(*found, status, "{what}: status of lane {lane}");
        assert_eq!(bits(values), bits(&rows), "{what}: rows of lane {lane}");
        assert_eq!(*snapshot, alone.snapshot(), "{what}: persistent bytes of lane {lane}");
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
    ("Lotka–Volterra", include_str!("../../../deploy/models/lotka_volterra.mo"), 20.0),
    ("Robertson", include_str!("../../../deploy/models/robertson.mo"), 100.0),
    ("van der Pol", include_str!("../../../deploy/models/van_der_pol.mo"), 20.0),
    ("battery", include_str!("../../../deploy/models/battery_2rc.mo"), 4000.0),
    ("CSTR", include_str!("../../../deploy/models/cstr.mo"), 10.0),
    ("doses", include_str!("../../../deploy/models/pk1.mo"), 30.0),
    ("vehicle", include_str!("../../../deploy/models/bicycle.mo"), 5.0),
    ("TCLab", include_str!("../../../deploy/models/tclab.mo"), 500.0),
];

#[test]
fn every_shipped_model_under_every_method() {
    let engine = cranelift();
    for (name, source, seconds) in SHIPPED {
        let methods: &[Method] = match name {
            "Robertson" => &[Method::Rodas5p, Method::Esdirk, Method::Auto],
            _ => &[
                Method::Tsit5,
                Method::Rk4 { steps_per_tick: 300 },
                Method::Rodas5p,
                Method::Esdirk,
                Method::Auto,
            ],
        };
        for method in methods {
            let plan = Plan {
                method: *method,
                event_rows: 64,
                ..until(seconds, 11)
            };
            same_bits(&engine, source, &members(source, &plan), &format!("{name}, {method:?}"));
        }
    }
}
