//! One function for two lanes.

mod operators;

use std::rc::Rc;

use wasm_encoder::{BlockType, InstructionSink, MemArg, ValType};

use super::shape::{Exits, Shape, Shapes};
use super::{Key, Lanes, is_truth, val_type};
use crate::kernel::{Binary, Expr, Function, Stmt, Ty, Unary};

/// Both lanes.
const ALL: i128 = -1;
const ONES: i128 = (1 << 64) | 1;
/// Everything but the sign of a float.
const MAGNITUDE: i128 = 0x7fff_ffff_ffff_ffff_7fff_ffff_ffff_ffff;

pub struct Printer<'l, 'a> {
    lanes: &'l mut Lanes<'a>,
    shapes: Rc<Shapes>,
    out: Vec<u8>,
    /// Types of the locals after the parameters.
    types: Vec<ValType>,
    parameters: u32,
    /// The Wasm local of each local of the function.
    places: Vec<u32>,
    /// The lanes that are here.
    mask: u32,
    /// The lanes that have returned, and with what.
    gone: u32,
    result: u32,
    /// Whether both lanes are certain to be here.
    full: bool,
    /// Parted contexts around.
    parted: u32,
    /// Wasm labels around.
    labels: u32,
    loops: Vec<Loop>,
}

struct Loop {
    exit: u32,
    next: u32,
    /// For a loop that lanes leave or go on with by themselves: those that broke and those that continued.
    masks: Option<(u32, u32)>,
}

impl<'l, 'a> Printer<'l, 'a> {
    /// The types of the locals and the instructions.
    pub fn print(
        lanes: &'l mut Lanes<'a>,
        function: &Function,
        key: &Key,
        shapes: Rc<Shapes>,
    ) -> Result<(Vec<ValType>, Vec<u8>), String> {
        let given = function.parameters.len() as u32;
        let mut printer = Printer {
            lanes,
            out: Vec::new(),
            types: Vec::new(),
            parameters: given + u32::from(!key.full),
            places: (0..given).collect(),
            mask: given,
            gone: 0,
            result: 0,
            full: key.full,
            parted: 0,
            labels: 0,
            loops: Vec::new(),
            shapes: Rc::clone(&shapes),
        };
        for shape in &shapes.locals[given as usize..] {
            let place = printer.local(val_type(*shape));
            printer.places.push(place);
        }
        if key.full {
            printer.mask = printer.local(ValType::V128);
            printer.sink().v128_const(ALL);
            let mask = printer.mask;
            printer.sink().local_set(mask);
        }
        printer.gone = printer.local(ValType::V128);
        printer.result = printer.local(val_type(shapes.result));
        printer.sink().block(BlockType::Empty);
        printer.labels = 1;
        printer.list(&function.body)?;
        printer.sink().end();
        if function.result.is_some() {
            let result = printer.result;
            printer.sink().local_get(result);
        }
        printer.sink().end();
        Ok((printer.types, printer.out))
    }

    fn sink(&mut self) -> InstructionSink<'_> {
        InstructionSink::new(&mut self.out)
    }

    fn local(&mut self, ty: ValType) -> u32 {
        self.types.push(ty);
        self.parameters + self.types.len() as u32 - 1
    }

    fn shape(&mut self, expr: &Expr) -> Shape {
        let shapes = Rc::clone(&self.shapes);
        shapes.of(self.lanes, expr)
    }

    /// Leaves this list when nobody is here any more.
    fn list(&mut self, list: &[Stmt]) -> Result<(), String> {
        let shapes = Rc::clone(&self.shapes);
        let full = self.full;
        let exits: Vec<Exits> = list
            .iter()
            .map(|statement| shapes.exits_of(self.lanes, statement, false))
            .collect();
        let guarded = exits.iter().rev().skip(1).any(|exits| exits.any());
        if guarded {
            self.sink().block(BlockType::Empty);
            self.labels += 1;
        }
        for (at, statement) in list.iter().enumerate() {
            self.statement(statement)?;
            if exits[at].any() {
                self.full = false;
                if at + 1 < list.len() {
                    let mask = self.mask;
                    self.sink().local_get(mask).v128_any_true().i32_eqz().br_if(0);
                }
            }
        }
        if guarded {
            self.sink().end();
            self.labels -= 1;
        }
        self.full = full;
        Ok(())
    }

    fn statement(&mut self, statement: &Stmt) -> Result<(), String> {
        match statement {
            Stmt::Set(local, value) => {
                let place = self.places[*local as usize];
                let shape = self.shapes.locals[*local as usize];
                let blend = shape == Shape::Two && self.parted > self.shapes.homes[*local as usize];
                self.value(value, shape)?;
                if blend {
                    let mask = self.mask;
                    self.sink().local_get(place).local_get(mask).v128_bitselect();
                }
                self.sink().local_set(place);
            }
            Stmt::Store(ty, address, offset, value) => self.store(*ty, address, *offset, value)?,
            Stmt::If(condition, first, second) => self.choose(condition, first, second)?,
            Stmt::While { condition, body, step } => self.repeat(condition, body, step)?,
            Stmt::Break => self.leave(true)?,
            Stmt::Continue => self.leave(false)?,
            Stmt::Return(value) => {
                let (mask, gone, result) = (self.mask, self.gone, self.result);
                if let Some(value) = value {
                    let shape = self.shapes.result;
                    self.value(value, shape)?;
                    if shape == Shape::Two {
                        self.sink().local_get(result).local_get(mask).v128_bitselect();
                    }
                    self.sink().local_set(result);
                }
                if self.parted == 0 {
                    let outermost = self.labels - 1;
                    self.sink().br(outermost);
                } else {
                    self.sink().local_get(gone).local_get(mask).v128_or().local_set(gone);
                    self.sink().v128_const(0).local_set(mask);
                }
            }
            Stmt::Do(value) => {
                self.expr(value)?;
                if value.ty().is_some() {
                    self.sink().drop();
                }
            }
        }
        Ok(())
    }

    /// `break`, else `continue`.
    fn leave(&mut self, breaks: bool) -> Result<(), String> {
        let found = self.loops.last().map(|inner| (inner.exit, inner.next, inner.masks));
        let (exit, next, masks) = found.ok_or("a `break` outside a loop")?;
        match masks {
            // Others may wait for the next turn.
            Some((broken, continued)) => {
                let (mask, target) = (self.mask, if breaks { broken } else { continued });
                self.sink()
                    .local_get(target)
                    .local_get(mask)
                    .v128_or()
                    .local_set(target);
                self.sink().v128_const(0).local_set(mask);
            }
            None => {
                let label = self.labels - if breaks { exit } else { next };
                self.sink().br(label);
            }
        }
        Ok(())
    }

    fn choose(&mut self, condition: &Expr, first: &[Stmt], second: &[Stmt]) -> Result<(), String> {
        if self.shape(condition) != Shape::Two {
            self.value(condition, Shape::One)?;
            self.sink().if_(BlockType::Empty);
            self.labels += 1;
            self.list(first)?;
            if !second.is_empty() {
                self.sink().else_();
                self.list(second)?;
            }
            self.labels -= 1;
            self.sink().end();
            return Ok(());
        }
        let shapes = Rc::clone(&self.shapes);
        let exits = [first, second].map(|list| shapes.exits(self.lanes, list, true));
        let (chosen, before, mask) = (self.local(ValType::V128), self.local(ValType::V128), self.mask);
        self.truth(condition)?;
        self.sink().local_set(chosen).local_get(mask).local_set(before);
        self.sink()
            .local_get(before)
            .local_get(chosen)
            .v128_and()
            .local_set(mask);
        self.parted_list(first)?;
        if !second.is_empty() {
            self.sink()
                .local_get(before)
                .local_get(chosen)
                .v128_andnot()
                .local_set(mask);
            self.parted_list(second)?;
        }
        self.sink().local_get(before);
        if exits.iter().any(|exits| exits.returns) {
            let gone = self.gone;
            self.sink().local_get(gone).v128_andnot();
        }
        if let Some((broken, continued)) = self.loops.last().and_then(|inner| inner.masks) {
            if exits.iter().any(|exits| exits.breaks) {
                self.sink().local_get(broken).v128_andnot();
            }
            if exits.iter().any(|exits| exits.continues) {
                self.sink().local_get(continued).v128_andnot();
            }
        }
        self.sink().local_set(mask);
        Ok(())
    }

    /// A list for the lanes in the mask, if there are any.
    fn parted_list(&mut self, list: &[Stmt]) -> Result<(), String> {
        let (mask, full) = (self.mask, self.full);
        self.sink().local_get(mask).v128_any_true().if_(BlockType::Empty);
        self.labels += 1;
        self.parted += 1;
        self.full = false;
        self.list(list)?;
        self.full = full;
        self.parted -= 1;
        self.labels -= 1;
        self.sink().end();
        Ok(())
    }

    fn repeat(&mut self, condition: &Expr, body: &[Stmt], step: &[Stmt]) -> Result<(), String> {
        let shapes = Rc::clone(&self.shapes);
        let parts = shapes.parts(self.lanes, condition, body);
        let (mask, gone, full) = (self.mask, self.gone, self.full);
        let before = self.local(ValType::V128);
        let masks = parts.then(|| (self.local(ValType::V128), self.local(ValType::V128)));
        let active = self.local(ValType::V128);
        if let Some((broken, _)) = masks {
            self.sink()
                .local_get(mask)
                .local_set(before)
                .v128_const(0)
                .local_set(broken);
            self.parted += 1;
            self.full = false;
        }
        self.sink().block(BlockType::Empty).loop_(BlockType::Empty);
        self.labels += 2;
        let exit = self.labels - 1;
        if self.shape(condition) == Shape::Two {
            self.truth(condition)?;
            self.sink().local_get(mask).v128_and().local_tee(mask);
            self.sink().v128_any_true().i32_eqz().br_if(1);
        } else {
            self.value(condition, Shape::One)?;
            self.sink().i32_eqz().br_if(1);
        }
        if let Some((_, continued)) = masks {
            self.sink()
                .local_get(mask)
                .local_set(active)
                .v128_const(0)
                .local_set(continued);
        }
        self.sink().block(BlockType::Empty);
        self.labels += 1;
        self.loops.push(Loop {
            exit,
            next: self.labels,
            masks,
        });
        self.list(body)?;
        self.loops.pop();
        self.labels -= 1;
        self.sink().end();
        if let Some((broken, _)) = masks {
            // Lanes that continued are here again.
            self.sink().local_get(active).local_get(gone).v128_andnot();
            self.sink().local_get(broken).v128_andnot().local_tee(mask);
            self.sink().v128_any_true().i32_eqz().br_if(1);
        }
        self.list(step)?;
        self.sink().br(0).end().end();
        self.labels -= 2;
        if masks.is_some() {
            self.sink()
                .local_get(before)
                .local_get(gone)
                .v128_andnot()
                .local_set(mask);
            self.parted -= 1;
            self.full = full;
        }
        Ok(())
    }

    /// The address in this memory of what lies at `address + offset` in the first lane; the other lane is 8 further.
    /// Returns what is still to be added.
    fn address(&mut self, address: &Expr, offset: u32, aligned: bool) -> Result<u32, String> {
        self.value(address, Shape::One)?;
        if aligned {
            self.sink().i32_const(1).i32_shl();
            return Ok(2 * (offset & !7) + (offset & 7));
        }
        // 2·(a − a mod 8) + a mod 8
        let at = self.local(ValType::I32);
        self.sink().i32_const(offset as i32).i32_add().local_tee(at);
        self.sink().local_get(at).i32_const(-8).i32_and().i32_add();
        Ok(0)
    }

    /// For each lane its own address in this memory, as an i64; lanes that are not here get 0.
    fn addresses(&mut self, address: &Expr, offset: u32) -> Result<u32, String> {
        self.value(address, Shape::Two)?;
        let at = self.local(ValType::V128);
        self.sink()
            .i64_const(i64::from(offset))
            .i64x2_splat()
            .i64x2_add()
            .local_tee(at);
        self.sink()
            .local_get(at)
            .i64_const(-8)
            .i64x2_splat()
            .v128_and()
            .i64x2_add();
        if !self.full {
            let mask = self.mask;
            self.sink().local_get(mask).v128_and();
        }
        self.sink().local_set(at);
        Ok(at)
    }

    fn load(&mut self, ty: Ty, address: &Expr, offset: u32) -> Result<Shape, String> {
        match self.shape(address) {
            Shape::Context if ty == Ty::I32 && offset < crate::abi::status::CODE => {
                let offset = self.address(address, offset, true)?;
                self.sink().i32_load(memarg(offset, 2));
                return Ok(Shape::One);
            }
            Shape::Two => {
                let at = self.addresses(address, offset)?;
                for lane in 0..2 {
                    if lane == 1 && ty == Ty::I32 {
                        // The vector with the first lane is on the stack.
                        self.sink().local_get(at).i64x2_extract_lane(1).i32_wrap_i64();
                        self.sink().i64_load32_s(memarg(8, 2)).i64x2_replace_lane(1);
                    } else if lane == 1 {
                        let first = self.local(ValType::V128);
                        self.sink()
                            .local_set(first)
                            .local_get(at)
                            .i64x2_extract_lane(1)
                            .i32_wrap_i64();
                        self.sink().local_get(first).v128_load64_lane(memarg(8, 3), 1);
                    } else {
                        self.sink().local_get(at).i64x2_extract_lane(0).i32_wrap_i64();
                        match ty {
                            Ty::I32 => self.sink().i64_load32_s(memarg(0, 2)).i64x2_splat(),
                            _ => self.sink().v128_load64_zero(memarg(0, 3)),
                        };
                    }
                }
            }
            _ if ty == Ty::I32 => {
                let at = self.local(ValType::I32);
                let offset = self.address(address, offset, false)?;
                self.sink().local_tee(at).i64_load32_s(memarg(offset, 2)).i64x2_splat();
                self.sink()
                    .local_get(at)
                    .i64_load32_s(memarg(offset + 8, 2))
                    .i64x2_replace_lane(1);
            }
            _ => {
                let offset = self.address(address, offset, true)?;
                self.sink().v128_load(memarg(offset, 3));
            }
        }
        Ok(Shape::Two)
    }

    fn store(&mut self, ty: Ty, address: &Expr, offset: u32, value: &Expr) -> Result<(), String> {
        let (mask, full) = (self.mask, self.full);
        if self.shape(address) == Shape::Two {
            let at = self.addresses(address, offset)?;
            let kept = self.local(ValType::V128);
            self.value(value, Shape::Two)?;
            self.sink().local_set(kept);
            for lane in 0..2 {
                if !full {
                    self.sink().local_get(mask).i64x2_extract_lane(lane).i64_eqz().i32_eqz();
                    self.sink().if_(BlockType::Empty);
                }
                self.sink()
                    .local_get(at)
                    .i64x2_extract_lane(lane)
                    .i32_wrap_i64()
                    .local_get(kept);
                let by = 8 * u32::from(lane);
                match ty {
                    Ty::I32 => self.sink().i64x2_extract_lane(lane).i64_store32(memarg(by, 2)),
                    _ => self.sink().v128_store64_lane(memarg(by, 3), lane),
                };
                if !full {
                    self.sink().end();
                }
            }
            return Ok(());
        }
        let at = self.local(ValType::I32);
        let offset = self.address(address, offset, ty != Ty::I32)?;
        if ty == Ty::I32 {
            let kept = self.local(ValType::V128);
            self.sink().local_set(at);
            self.value(value, Shape::Two)?;
            self.sink().local_set(kept);
            for lane in 0..2 {
                if !full {
                    self.sink().local_get(mask).i64x2_extract_lane(lane).i64_eqz().i32_eqz();
                    self.sink().if_(BlockType::Empty);
                }
                self.sink().local_get(at).local_get(kept).i64x2_extract_lane(lane);
                self.sink().i64_store32(memarg(offset + 8 * u32::from(lane), 2));
                if !full {
                    self.sink().end();
                }
            }
            return Ok(());
        }
        if full {
            self.value(value, Shape::Two)?;
        } else {
            self.sink().local_tee(at);
            self.value(value, Shape::Two)?;
            self.sink()
                .local_get(at)
                .v128_load(memarg(offset, 3))
                .local_get(mask)
                .v128_bitselect();
        }
        self.sink().v128_store(memarg(offset, 3));
        Ok(())
    }

    /// An expression's value in the shape that is wanted.
    fn value(&mut self, expr: &Expr, wanted: Shape) -> Result<(), String> {
        let found = self.expr(expr)?;
        match (found, wanted) {
            (Shape::Context | Shape::One, Shape::Two) => {
                self.sink().i64_extend_i32_s().i64x2_splat();
                Ok(())
            }
            (Shape::Two, Shape::One | Shape::Context) => Err("a value of two lanes where one is needed".to_string()),
            _ => Ok(()),
        }
    }

    /// The lanes in which an i32 is not 0.
    fn truth(&mut self, expr: &Expr) -> Result<(), String> {
        match expr {
            Expr::Binary(op, ty, left, right) if op.is_comparison() && self.shape(expr) == Shape::Two => {
                self.value(left, Shape::Two)?;
                self.value(right, Shape::Two)?;
                self.compare(*op, *ty);
            }
            Expr::Unary(Unary::Not, operand) if self.shape(operand) == Shape::Two => {
                self.truth(operand)?;
                self.sink().v128_not();
            }
            Expr::Binary(op @ (Binary::And | Binary::Or), Ty::I32, left, right)
                if is_truth(expr) && self.shape(expr) == Shape::Two =>
            {
                self.truth(left)?;
                self.truth(right)?;
                match op {
                    Binary::And => self.sink().v128_and(),
                    _ => self.sink().v128_or(),
                };
            }
            Expr::Select(Ty::I32, parts) if self.shape(expr) == Shape::Two => {
                self.truth(&parts[1])?;
                self.truth(&parts[2])?;
                self.truth(&parts[0])?;
                self.sink().v128_bitselect();
            }
            _ => {
                self.value(expr, Shape::Two)?;
                self.sink().v128_const(0).i64x2_ne();
            }
        }
        Ok(())
    }

    fn expr(&mut self, expr: &Expr) -> Result<Shape, String> {
        let shape = self.shape(expr);
        match expr {
            Expr::F64(value) => {
                let bits = i128::from(value.to_bits());
                self.sink().v128_const((bits << 64) | bits);
            }
            Expr::I64(value) => {
                let bits = i128::from(*value as u64);
                self.sink().v128_const((bits << 64) | bits);
            }
            Expr::I32(value) => {
                self.sink().i32_const(*value);
            }
            Expr::Local(local, _) => {
                let place = self.places[*local as usize];
                self.sink().local_get(place);
            }
            Expr::Load(ty, address, offset) => return self.load(*ty, address, *offset),
            Expr::Unary(op, operand) => self.unary(*op, operand)?,
            Expr::Binary(op, ty, left, right) if shape == Shape::Two => self.binary(expr, *op, *ty, left, right)?,
            Expr::Binary(op, _, left, right) => {
                self.value(left, Shape::One)?;
                self.value(right, Shape::One)?;
                self.scalar(*op)?;
            }
            Expr::Select(_, parts) if shape == Shape::Two => {
                self.value(&parts[1], Shape::Two)?;
                self.value(&parts[2], Shape::Two)?;
                self.truth(&parts[0])?;
                self.sink().v128_bitselect();
            }
            Expr::Select(_, parts) => {
                self.value(&parts[1], Shape::One)?;
                self.value(&parts[2], Shape::One)?;
                self.value(&parts[0], Shape::One)?;
                self.sink().select();
            }
            Expr::Call(function, result, arguments) => return self.call(*function, *result, arguments),
        }
        Ok(shape)
    }

    fn call(&mut self, function: usize, result: Option<Ty>, arguments: &[Expr]) -> Result<Shape, String> {
        let parameters: Vec<Shape> = arguments.iter().map(|argument| self.shape(argument)).collect();
        let shape = self
            .lanes
            .known(function, &parameters)
            .map_or(Shape::Two, |shapes| shapes.result);
        let mut key = Key {
            function,
            parameters,
            full: true,
        };
        if self.full || !self.lanes.touches(function) {
            for (argument, shape) in arguments.iter().zip(&key.parameters) {
                self.value(argument, *shape)?;
            }
            let place = self.lanes.place(key);
            self.sink().call(place);
            return Ok(shape);
        }
        let mut places = Vec::new();
        for (argument, shape) in arguments.iter().zip(&key.parameters) {
            self.value(argument, *shape)?;
            let place = self.local(val_type(*shape));
            self.sink().local_set(place);
            places.push(place);
        }
        let both = self.lanes.place(key.clone());
        key.full = false;
        let some = self.lanes.place(key);
        let mask = self.mask;
        let block = match result {
            Some(_) => BlockType::Result(val_type(shape)),
            None => BlockType::Empty,
        };
        self.sink().local_get(mask).i64x2_all_true().if_(block);
        for place in &places {
            self.sink().local_get(*place);
        }
        self.sink().call(both).else_();
        for place in &places {
            self.sink().local_get(*place);
        }
        self.sink().local_get(mask).call(some).end();
        Ok(shape)
    }
}

/// Replaces NaNs on the stack by the canonical one, as the printer for one lane does.
fn canonical<'s, 'b>(sink: &'s mut InstructionSink<'b>, at: u32) -> &'s mut InstructionSink<'b> {
    let bits = i128::from(f64::NAN.to_bits());
    sink.local_tee(at).v128_const((bits << 64) | bits);
    sink.local_get(at).local_get(at).f64x2_eq().v128_bitselect()
}

fn memarg(offset: u32, align: u32) -> MemArg {
    MemArg {
        offset: u64::from(offset),
        align,
        memory_index: 0,
    }
}
