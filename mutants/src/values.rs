//! What a function may return in place of what it computes, by its type.

use syn::{GenericArgument, PathArguments, Type};

/// Rust expressions of a type. Some may not compile; the compiler says which.
pub(crate) fn of(kind: &Type) -> Vec<String> {
    match kind {
        Type::Path(path) => path.path.segments.last().map_or_else(Vec::new, named),
        Type::Reference(reference) => referred(reference),
        Type::Tuple(tuple) if tuple.elems.is_empty() => vec!["()".to_owned()],
        Type::Tuple(tuple) => {
            let parts = tuple.elems.iter().map(|part| of(part).into_iter().next());
            let parts: Option<Vec<_>> = parts.collect();
            parts.map(|parts| format!("({},)", parts.join(", "))).into_iter().collect()
        }
        // The first `return` would say what an `impl Trait` is; `!` never returns.
        _ => Vec::new(),
    }
}

fn named(segment: &syn::PathSegment) -> Vec<String> {
    let owned = |values: &[&str]| values.iter().map(|&value| value.to_owned()).collect();
    let inner = || arguments(segment).first().map_or_else(Vec::new, |kind| of(kind));
    let wrapped = |name: &str| inner().iter().map(|value| format!("{name}({value})")).collect();
    match segment.ident.to_string().as_str() {
        "bool" => owned(&["true", "false"]),
        "u8" | "u16" | "u32" | "u64" | "u128" | "usize" => owned(&["0", "1"]),
        "i8" | "i16" | "i32" | "i64" | "i128" | "isize" => owned(&["0", "1", "-1"]),
        "f32" | "f64" => owned(&["0.0", "1.0", "-1.0"]),
        "String" => owned(&["String::new()", "\"xyzzy\".into()"]),
        "Option" => {
            let some: Vec<String> = wrapped("Some");
            std::iter::once("None".to_owned()).chain(some).collect()
        }
        // `fmt::Result`, and others with nothing to say.
        "Result" if arguments(segment).is_empty() => owned(&["Ok(Default::default())"]),
        "Result" => wrapped("Ok"),
        "Box" => wrapped("Box::new"),
        "Arc" => wrapped("std::sync::Arc::new"),
        _ => owned(&["Default::default()"]),
    }
}

fn referred(reference: &syn::TypeReference) -> Vec<String> {
    if reference.mutability.is_some() {
        return Vec::new();
    }
    match &*reference.elem {
        Type::Path(path) if path.path.is_ident("str") => {
            vec!["\"\"".to_owned(), "\"xyzzy\"".to_owned()]
        }
        Type::Slice(_) => vec!["&[]".to_owned()],
        Type::Path(_) => vec!["Box::leak(Box::default())".to_owned()],
        _ => Vec::new(),
    }
}

fn arguments(segment: &syn::PathSegment) -> Vec<&Type> {
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else {
        return Vec::new();
    };
    let kinds = arguments.args.iter().filter_map(|argument| match argument {
        GenericArgument::Type(kind) => Some(kind),
        _ => None,
    });
    kinds.collect()
}
