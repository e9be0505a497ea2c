//! Operators on one or two lanes.

use wasm_encoder::ValType;

use super::super::shape::Shape;
use super::{MAGNITUDE, ONES, Printer, canonical};
use crate::kernel::{Binary, Expr, Ty, Unary};

impl Printer<'_, '_> {
    pub(super) fn unary(&mut self, op: Unary, operand: &Expr) -> Result<(), String> {
        if op == Unary::FromI32 && self.shape(operand) != Shape::Two {
            self.value(operand, Shape::One)?;
            self.sink().f64_convert_i32_s().f64x2_splat();
            return Ok(());
        }
        if op == Unary::Not {
            if self.shape(operand) == Shape::Two {
                self.truth(operand)?;
                self.sink().v128_not().v128_const(ONES).v128_and();
            } else {
                self.value(operand, Shape::One)?;
                self.sink().i32_eqz();
            }
            return Ok(());
        }
        self.value(operand, Shape::Two)?;
        let at = self.local(ValType::V128);
        let mut sink = self.sink();
        match op {
            Unary::Neg => sink.f64x2_neg(),
            Unary::Abs => sink.f64x2_abs(),
            Unary::Sqrt => sink.f64x2_sqrt(),
            Unary::Floor => sink.f64x2_floor(),
            Unary::Ceil => sink.f64x2_ceil(),
            Unary::Trunc => sink.f64x2_trunc(),
            Unary::Nearest => sink.f64x2_nearest(),
            Unary::Bits => canonical(&mut sink, at),
            Unary::FromBits | Unary::Extend | Unary::Not => &mut sink,
            Unary::Wrap => sink.i32_const(32).i64x2_shl().i32_const(32).i64x2_shr_s(),
            Unary::FromI32 => {
                sink.v128_const(0);
                sink.i8x16_shuffle([0, 1, 2, 3, 8, 9, 10, 11, 16, 16, 16, 16, 16, 16, 16, 16]);
                sink.f64x2_convert_low_i32x4_s()
            }
            Unary::FromI64 => {
                sink.local_tee(at)
                    .i64x2_extract_lane(0)
                    .f64_convert_i64_s()
                    .f64x2_splat();
                sink.local_get(at).i64x2_extract_lane(1).f64_convert_i64_s();
                sink.f64x2_replace_lane(1)
            }
            Unary::ToI64 => {
                sink.local_tee(at)
                    .f64x2_extract_lane(0)
                    .i64_trunc_sat_f64_s()
                    .i64x2_splat();
                sink.local_get(at).f64x2_extract_lane(1).i64_trunc_sat_f64_s();
                sink.i64x2_replace_lane(1)
            }
        };
        Ok(())
    }

    pub(super) fn binary(&mut self, expr: &Expr, op: Binary, ty: Ty, left: &Expr, right: &Expr) -> Result<(), String> {
        if op.is_comparison() {
            self.truth(expr)?;
            self.sink().v128_const(ONES).v128_and();
            return Ok(());
        }
        if matches!(op, Binary::Shl | Binary::ShrS | Binary::ShrU) {
            return self.shift(op, ty, left, right);
        }
        self.value(left, Shape::Two)?;
        self.value(right, Shape::Two)?;
        if op == Binary::CopySign {
            let at = self.local(ValType::V128);
            canonical(&mut self.sink(), at);
        }
        match (ty, op) {
            (Ty::F64, Binary::Add) => self.sink().f64x2_add(),
            (Ty::F64, Binary::Sub) => self.sink().f64x2_sub(),
            (Ty::F64, Binary::Mul) => self.sink().f64x2_mul(),
            (Ty::F64, Binary::Div) => self.sink().f64x2_div(),
            (Ty::F64, Binary::Min) => self.sink().f64x2_min(),
            (Ty::F64, Binary::Max) => self.sink().f64x2_max(),
            (Ty::F64, Binary::CopySign) => self.sink().v128_const(MAGNITUDE).v128_bitselect(),
            (_, Binary::Add) => self.sink().i64x2_add(),
            (_, Binary::Sub) => self.sink().i64x2_sub(),
            (_, Binary::Mul) => self.sink().i64x2_mul(),
            (_, Binary::And) => self.sink().v128_and(),
            (_, Binary::Or) => self.sink().v128_or(),
            (_, Binary::Xor) => self.sink().v128_xor(),
            (_, Binary::Div | Binary::Rem) => {
                self.divide(op);
                return Ok(());
            }
            _ => return Err(format!("{op:?} of {ty:?} in lanes")),
        };
        if ty == Ty::I32 && matches!(op, Binary::Add | Binary::Sub | Binary::Mul) {
            // Wraps as one lane would.
            self.sink().i32_const(32).i64x2_shl();
            self.sink().i32_const(32).i64x2_shr_s();
        }
        Ok(())
    }

    /// By an amount that is the same in both lanes.
    fn shift(&mut self, op: Binary, ty: Ty, left: &Expr, right: &Expr) -> Result<(), String> {
        self.value(left, Shape::Two)?;
        if ty == Ty::I32 && op == Binary::ShrU {
            self.sink().v128_const(0xffff_ffff_0000_0000_ffff_ffff).v128_and();
        }
        match right {
            Expr::I64(amount) => {
                let amount = *amount as i32;
                self.sink().i32_const(amount);
            }
            right => self.value(right, Shape::One)?,
        }
        match op {
            Binary::Shl => self.sink().i64x2_shl(),
            Binary::ShrS => self.sink().i64x2_shr_s(),
            _ => self.sink().i64x2_shr_u(),
        };
        if ty == Ty::I32 && op == Binary::Shl {
            self.sink().i32_const(32).i64x2_shl();
            self.sink().i32_const(32).i64x2_shr_s();
        }
        Ok(())
    }

    /// Lane by lane; a lane that is not here divides by one.
    fn divide(&mut self, op: Binary) {
        let (left, right, mask) = (self.local(ValType::V128), self.local(ValType::V128), self.mask);
        self.sink()
            .v128_const(ONES)
            .local_get(mask)
            .v128_bitselect()
            .local_set(right)
            .local_set(left);
        for lane in 0..2 {
            self.sink().local_get(left).i64x2_extract_lane(lane);
            self.sink().local_get(right).i64x2_extract_lane(lane);
            match op {
                Binary::Div => self.sink().i64_div_s(),
                _ => self.sink().i64_rem_s(),
            };
            if lane == 0 {
                self.sink().i64x2_splat();
            } else {
                self.sink().i64x2_replace_lane(1);
            }
        }
    }

    pub(super) fn compare(&mut self, op: Binary, ty: Ty) {
        match (ty == Ty::F64, op) {
            (true, Binary::Eq) => self.sink().f64x2_eq(),
            (true, Binary::Ne) => self.sink().f64x2_ne(),
            (true, Binary::Lt) => self.sink().f64x2_lt(),
            (true, Binary::Le) => self.sink().f64x2_le(),
            (true, Binary::Gt) => self.sink().f64x2_gt(),
            (true, _) => self.sink().f64x2_ge(),
            (false, Binary::Eq) => self.sink().i64x2_eq(),
            (false, Binary::Ne) => self.sink().i64x2_ne(),
            (false, Binary::Lt) => self.sink().i64x2_lt_s(),
            (false, Binary::Le) => self.sink().i64x2_le_s(),
            (false, Binary::Gt) => self.sink().i64x2_gt_s(),
            (false, _) => self.sink().i64x2_ge_s(),
        };
    }

    /// An operation on i32 that are the same in both lanes.
    pub(super) fn scalar(&mut self, op: Binary) -> Result<(), String> {
        match op {
            Binary::Add => self.sink().i32_add(),
            Binary::Sub => self.sink().i32_sub(),
            Binary::Mul => self.sink().i32_mul(),
            Binary::Div => self.sink().i32_div_s(),
            Binary::Rem => self.sink().i32_rem_s(),
            Binary::And => self.sink().i32_and(),
            Binary::Or => self.sink().i32_or(),
            Binary::Xor => self.sink().i32_xor(),
            Binary::Shl => self.sink().i32_shl(),
            Binary::ShrS => self.sink().i32_shr_s(),
            Binary::ShrU => self.sink().i32_shr_u(),
            Binary::Eq => self.sink().i32_eq(),
            Binary::Ne => self.sink().i32_ne(),
            Binary::Lt => self.sink().i32_lt_s(),
            Binary::Le => self.sink().i32_le_s(),
            Binary::Gt => self.sink().i32_gt_s(),
            Binary::Ge => self.sink().i32_ge_s(),
            Binary::Min | Binary::Max | Binary::CopySign => return Err(format!("{op:?} of i32")),
        };
        Ok(())
    }
}
