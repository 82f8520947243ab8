//! Finds what can be changed in a file, and says how to write it so that a running program has
//! the change only where it is asked for.

use std::ops::Range;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{BinOp, Expr, ImplItemFn, ItemFn, ReturnType, Signature, TraitItemFn, UnOp};

use crate::values;

/// One change.
#[derive(Clone)]
pub(crate) struct Mutant {
    pub(crate) line: usize,
    /// What it does, without its place.
    pub(crate) says: String,
}

/// Text that goes in at a place; within it, which mutant stands where.
pub(crate) struct Insert {
    pub(crate) at: usize,
    /// Closings come before openings of the same place, and the inner one first.
    pub(crate) closes: bool,
    pub(crate) parts: Vec<Part>,
}

pub(crate) enum Part {
    Text(String),
    /// What stands there where the mutant with this index is chosen.
    Instead(usize, String),
    /// Whether the mutant with this index is chosen.
    Is(usize),
}

/// All changes of a file.
pub(crate) struct Finder<'a> {
    source: &'a str,
    pub(crate) mutants: Vec<Mutant>,
    pub(crate) inserts: Vec<Insert>,
    /// The function that is looked at.
    within: Vec<String>,
}

impl<'a> Finder<'a> {
    /// Looks through a file.
    pub(crate) fn read(source: &'a str) -> syn::Result<Self> {
        let file = syn::parse_file(source)?;
        let mut finder =
            Self { source, mutants: Vec::new(), inserts: Vec::new(), within: Vec::new() };
        finder.visit_file(&file);
        Ok(finder)
    }

    fn mutant(&mut self, at: usize, says: String) -> usize {
        let line = self.source[..at].matches('\n').count() + 1;
        let says = self.within.last().map_or(says.clone(), |name| format!("{says} in {name}"));
        self.mutants.push(Mutant { line, says });
        self.mutants.len() - 1
    }

    fn insert(&mut self, at: usize, closes: bool, parts: Vec<Part>) {
        self.inserts.push(Insert { at, closes, parts });
    }

    fn text(&self, range: Range<usize>) -> &'a str {
        &self.source[range]
    }

    /// The body may return something else at once.
    fn body(&mut self, signature: &Signature, block: &syn::Block) {
        let at = block.brace_token.span.open().byte_range().end;
        let values = match &signature.output {
            ReturnType::Default => vec!["()".to_owned()],
            ReturnType::Type(_, kind) => values::of(kind),
        };
        let body = self.text(block.span().byte_range()).split_whitespace().collect::<String>();
        for value in values {
            if body == format!("{{{value}}}").replace(' ', "") || body == "{}" {
                continue;
            }
            let mutant = self.mutant(at, format!("return {value}"));
            let parts = vec![
                Part::Text(" if ".to_owned()),
                Part::Is(mutant),
                Part::Text(" { ".to_owned()),
                Part::Instead(mutant, format!("return {value};")),
                Part::Text(" }".to_owned()),
            ];
            self.insert(at, false, parts);
        }
    }

    fn function(&mut self, signature: &Signature, block: &syn::Block) {
        // What the compiler computes cannot ask which mutant is chosen.
        if signature.constness.is_some() {
            return;
        }
        self.within.push(signature.ident.to_string());
        self.body(signature, block);
        self.visit_block(block);
        self.within.pop();
    }

    /// An expression with others in its place.
    fn instead(&mut self, expr: &Expr, others: Vec<(String, String)>) {
        let range = expr.span().byte_range();
        let mut parts = vec![Part::Text("(".to_owned())];
        for (text, says) in others {
            let mutant = self.mutant(range.start, says);
            parts.push(Part::Text("if ".to_owned()));
            parts.push(Part::Is(mutant));
            parts.push(Part::Text(" { ".to_owned()));
            parts.push(Part::Instead(mutant, text));
            parts.push(Part::Text(" } else ".to_owned()));
        }
        parts.push(Part::Text("{ ".to_owned()));
        self.insert(range.start, false, parts);
        self.insert(range.end, true, vec![Part::Text(" })".to_owned())]);
    }

    fn binary(&mut self, expr: &syn::ExprBinary) {
        let (left, right) = (expr.left.span().byte_range(), expr.right.span().byte_range());
        let (left, right) = (self.text(left).to_owned(), self.text(right).to_owned());
        let operator = self.text(expr.op.span().byte_range());
        // `if let .. && ..` has no other form.
        if has_let(&expr.left) || has_let(&expr.right) {
            return;
        }
        let others = operators(&expr.op).iter().map(|other| {
            (format!("{left} {other} {right}"), format!("replace {operator} with {other}"))
        });
        let others: Vec<_> = others.collect();
        if !others.is_empty() {
            self.instead(&Expr::Binary(expr.clone()), others);
        }
    }

    fn unary(&mut self, expr: &syn::ExprUnary) {
        let inner = self.text(expr.expr.span().byte_range()).to_owned();
        let operator = match expr.op {
            UnOp::Not(_) => "!",
            UnOp::Neg(_) => "-",
            _ => return,
        };
        let whole = Expr::Unary(expr.clone());
        self.instead(&whole, vec![(inner, format!("delete {operator}"))]);
    }

    fn arms(&mut self, expr: &syn::ExprMatch) {
        let wild = |arm: &syn::Arm| matches!(arm.pat, syn::Pat::Wild(_)) && arm.guard.is_none();
        let may_go = expr.arms.iter().any(wild);
        for arm in &expr.arms {
            let pattern = arm.pat.span().byte_range();
            let name = self.text(pattern.clone()).split_whitespace().collect::<Vec<_>>().join(" ");
            let gone = (may_go && !wild(arm))
                .then(|| self.mutant(pattern.start, format!("delete match arm {name}")));
            match &arm.guard {
                None => self.gone(pattern.end, gone),
                Some((_, guard)) if !has_let(guard) => self.guard(guard, &name, gone),
                Some(_) => {}
            }
        }
    }

    fn gone(&mut self, at: usize, mutant: Option<usize>) {
        if let Some(mutant) = mutant {
            let parts = vec![Part::Text(" if !".to_owned()), Part::Is(mutant)];
            self.insert(at, false, parts);
        }
    }

    fn guard(&mut self, guard: &Expr, name: &str, gone: Option<usize>) {
        let range = guard.span().byte_range();
        let says = |value: bool| format!("replace guard of match arm {name} with {value}");
        let always = self.mutant(range.start, says(true));
        let never = self.mutant(range.start, says(false));
        let mut parts = vec![Part::Text("(".to_owned()), Part::Is(always)];
        for mutant in [Some(never), gone].into_iter().flatten() {
            let joint = if mutant == never { " || !" } else { " && !" };
            parts.extend([Part::Text(joint.to_owned()), Part::Is(mutant)]);
        }
        parts.push(Part::Text(" && (".to_owned()));
        self.insert(range.start, false, parts);
        self.insert(range.end, true, vec![Part::Text("))".to_owned())]);
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        // What `{:?}` prints is nobody's business.
        let is_debug = item.trait_.as_ref().is_some_and(|(_, path, _)| {
            path.segments.last().is_some_and(|segment| segment.ident == "Debug")
        });
        if !is_debug && !is_for_tests(&item.attrs) {
            visit::visit_item_impl(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        if !is_for_tests(&item.attrs) {
            self.function(&item.sig, &item.block);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        if !is_for_tests(&item.attrs) {
            self.function(&item.sig, &item.block);
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'ast TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, block);
        }
    }

    fn visit_expr(&mut self, expr: &'ast Expr) {
        match expr {
            Expr::Binary(binary) => self.binary(binary),
            Expr::Unary(unary) => self.unary(unary),
            Expr::Match(arms) => self.arms(arms),
            _ => {}
        }
        visit::visit_expr(self, expr);
    }

    // The compiler computes these.
    fn visit_item_const(&mut self, _: &'ast syn::ItemConst) {}
    fn visit_item_static(&mut self, _: &'ast syn::ItemStatic) {}
    fn visit_impl_item_const(&mut self, _: &'ast syn::ImplItemConst) {}
    fn visit_trait_item_const(&mut self, _: &'ast syn::TraitItemConst) {}
    fn visit_type(&mut self, _: &'ast syn::Type) {}
    fn visit_pat(&mut self, _: &'ast syn::Pat) {}
    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
    fn visit_generic_argument(&mut self, _: &'ast syn::GenericArgument) {}
    fn visit_expr_repeat(&mut self, expr: &'ast syn::ExprRepeat) {
        self.visit_expr(&expr.expr);
    }
}

fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let path = attribute.path();
        let says = |word: &str| match &attribute.meta {
            syn::Meta::List(list) => list.tokens.to_string().contains(word),
            _ => false,
        };
        path.is_ident("test") || path.is_ident("cfg") && (says("test") || says("plant"))
    })
}

fn has_let(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        Expr::Paren(inner) => has_let(&inner.expr),
        _ => false,
    }
}

/// What may stand in place of an operator.
fn operators(operator: &BinOp) -> &'static [&'static str] {
    match operator {
        BinOp::Eq(_) => &["!="],
        BinOp::Ne(_) => &["=="],
        BinOp::And(_) => &["||"],
        BinOp::Or(_) => &["&&"],
        BinOp::Lt(_) => &["==", ">", "<="],
        BinOp::Gt(_) => &["==", "<", ">="],
        BinOp::Le(_) => &[">"],
        BinOp::Ge(_) => &["<"],
        BinOp::Add(_) => &["-", "*"],
        BinOp::Sub(_) | BinOp::Mul(_) => &["+", "/"],
        BinOp::Div(_) => &["%", "*"],
        BinOp::Rem(_) => &["/", "+"],
        BinOp::Shl(_) => &[">>"],
        BinOp::Shr(_) => &["<<"],
        BinOp::BitAnd(_) => &["|", "^"],
        BinOp::BitOr(_) => &["&", "^"],
        BinOp::BitXor(_) => &["|", "&"],
        BinOp::AddAssign(_) => &["-=", "*="],
        BinOp::SubAssign(_) | BinOp::MulAssign(_) => &["+=", "/="],
        BinOp::DivAssign(_) => &["%=", "*="],
        BinOp::RemAssign(_) => &["/=", "+="],
        BinOp::ShlAssign(_) => &[">>="],
        BinOp::ShrAssign(_) => &["<<="],
        BinOp::BitAndAssign(_) => &["|="],
        BinOp::BitOrAssign(_) => &["&="],
        BinOp::BitXorAssign(_) => &["|=", "&="],
        _ => &[],
    }
}
