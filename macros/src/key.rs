//! The code that reads an event's key out of a field.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote_spanned};
use syn::spanned::Spanned;
use syn::{
    Error, Field, Fields, GenericArgument, Member, PathArguments, PathSegment, Result, Type,
};

/// The body of `Event::key` for the field `key`.
pub(crate) fn body(fields: &Fields, key: &Member) -> Result<TokenStream> {
    let members = fields.members().zip(fields);
    let Some((_, field)) = members.into_iter().find(|(member, _)| member == key) else {
        return Err(missing(fields, key));
    };
    Ok(read(field, key))
}

fn read(field: &Field, key: &Member) -> TokenStream {
    let span = at(&field.ty);
    if let Some(inner) = option_of(&field.ty) {
        let text = text(inner, &quote_spanned!(span=> key));
        return quote_spanned! {span=>
            match &self.#key {
                ::core::option::Option::Some(key) => ::core::option::Option::Some(#text),
                ::core::option::Option::None => ::core::option::Option::None,
            }
        };
    }
    let text = text(&field.ty, &quote_spanned!(span=> &self.#key));
    quote_spanned!(span=> ::core::option::Option::Some(#text))
}

/// Points at the type, so that one that cannot be a key is shown; names are the derive's own, so
/// that a struct made by a `macro_rules!` finds its `self`.
fn at(ty: &Type) -> Span {
    Span::call_site().located_at(ty.span())
}

/// The text of `value`, a reference to a `ty`: borrowed where `ty` is text.
fn text(ty: &Type, value: &TokenStream) -> TokenStream {
    let span = at(ty);
    if is_text(ty) {
        return quote_spanned! {span=>
            ::std::borrow::Cow::Borrowed(<#ty as ::core::convert::AsRef<str>>::as_ref(#value))
        };
    }
    quote_spanned! {span=>
        ::std::borrow::Cow::Owned(<#ty as ::std::string::ToString>::to_string(#value))
    }
}

fn is_text(ty: &Type) -> bool {
    let Some(last) = last_segment(ty) else { return false };
    match last.ident.to_string().as_str() {
        "String" => last.arguments.is_none(),
        "Box" | "Rc" | "Arc" | "Cow" => last_argument(last).is_some_and(is_str),
        _ => false,
    }
}

fn is_str(ty: &Type) -> bool {
    matches!(ty, Type::Path(path) if path.path.is_ident("str"))
}

/// The `T` of an `Option<T>`.
fn option_of(ty: &Type) -> Option<&Type> {
    last_segment(ty).filter(|last| last.ident == "Option").and_then(last_argument)
}

fn last_segment(ty: &Type) -> Option<&PathSegment> {
    match ty {
        Type::Path(path) if path.qself.is_none() => path.path.segments.last(),
        // What a `macro_rules!` passes on may be wrapped.
        Type::Group(group) => last_segment(&group.elem),
        Type::Paren(paren) => last_segment(&paren.elem),
        _ => None,
    }
}

fn last_argument(segment: &PathSegment) -> Option<&Type> {
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else { return None };
    match arguments.args.last() {
        Some(GenericArgument::Type(ty)) => Some(ty),
        _ => None,
    }
}

fn missing(fields: &Fields, key: &Member) -> Error {
    let names: Vec<String> = fields.members().map(|member| shown(&member)).collect();
    let known = match names.len() {
        0 => "the struct has no fields; leave `key` out".to_owned(),
        1 => format!("the only field is {}", names[0]),
        _ => format!("the fields are {}", names.join(", ")),
    };
    Error::new_spanned(key, format!("no field `{}`; {known}", shown(key)))
}

fn shown(member: &Member) -> String {
    member.to_token_stream().to_string()
}
