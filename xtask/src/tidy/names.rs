//! What a source file names: its paths, written out in full, and where it says `unsafe`.

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::{
    ItemExternCrate, ItemMod, ItemUse, Macro, Path, UseTree,
    visit::{self, Visit},
};

/// One path in a source file.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Name {
    /// Its segments as they are written, `crate`, `self` and `super` included.
    pub(super) segments: Vec<String>,
    /// How many inline `mod {}` surround it: `super` counts from there.
    pub(super) depth: usize,
    /// Whether it is imported by `use`, or its crate by `extern crate`.
    pub(super) import: bool,
    /// From 1.
    pub(super) line: usize,
}

/// What one source file names.
#[derive(Default, Debug)]
pub(super) struct Names {
    /// Every path: imports with their groups taken apart, paths in code, and paths in the arguments of macros.
    pub(super) paths: Vec<Name>,
    /// The lines that hold the keyword `unsafe`: blocks, functions, impls, attributes, in macros too.
    pub(super) unsafe_lines: Vec<usize>,
    depth: usize,
}

/// Parses the file.
pub(super) fn of(text: &str) -> syn::Result<Names> {
    let mut names = Names::default();
    names.visit_file(&syn::parse_file(text)?);
    unsafe_lines(text.parse()?, &mut names.unsafe_lines);
    Ok(names)
}

fn unsafe_lines(tokens: TokenStream, lines: &mut Vec<usize>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => unsafe_lines(group.stream(), lines),
            TokenTree::Ident(ident) if ident == "unsafe" => lines.push(ident.span().start().line),
            _ => {}
        }
    }
}

impl Names {
    fn push(&mut self, segments: Vec<String>, import: bool, span: Span) {
        self.paths.push(Name { segments, depth: self.depth, import, line: span.start().line });
    }

    /// Takes `a::{b, c::d}` apart into `a::b` and `a::c::d`. A renamed import keeps its true name, a glob is its module.
    fn push_tree(&mut self, mut prefix: Vec<String>, tree: &UseTree, span: Span) {
        match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.push_tree(prefix, &path.tree, path.ident.span());
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.push_tree(prefix.clone(), tree, span);
                }
            }
            UseTree::Glob(_) => self.push(prefix, true, span),
            UseTree::Name(name) => {
                if name.ident != "self" {
                    prefix.push(name.ident.to_string());
                }
                self.push(prefix, true, name.ident.span());
            }
            UseTree::Rename(rename) => {
                if rename.ident != "self" {
                    prefix.push(rename.ident.to_string());
                }
                self.push(prefix, true, rename.ident.span());
            }
        }
    }

    /// The arguments of a macro are not parsed yet: take every run of `a::b::c` for a path.
    fn push_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut start = Span::call_site();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => {
                    colons += 1;
                    continue;
                }
                TokenTree::Ident(ident) => {
                    if path.is_empty() || colons != 2 {
                        self.push_some(&mut path, start);
                        start = ident.span();
                    }
                    path.push(ident.to_string());
                }
                TokenTree::Group(group) => {
                    self.push_some(&mut path, start);
                    self.push_tokens(group.stream());
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => self.push_some(&mut path, start),
            }
            colons = 0;
        }
        self.push_some(&mut path, start);
    }

    fn push_some(&mut self, path: &mut Vec<String>, start: Span) {
        // A lone word in a macro is a variable more often than a crate.
        if path.len() > 1 {
            self.push(std::mem::take(path), false, start);
        }
        path.clear();
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        visit::visit_item_use(self, item);
        self.push_tree(Vec::new(), &item.tree, item.use_token.span);
    }

    fn visit_item_extern_crate(&mut self, item: &'ast ItemExternCrate) {
        self.push(vec![item.ident.to_string()], true, item.ident.span());
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        let inline = usize::from(item.content.is_some());
        self.depth += inline;
        visit::visit_item_mod(self, item);
        self.depth -= inline;
    }

    fn visit_path(&mut self, path: &'ast Path) {
        let segments: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if let Some(first) = path.segments.first() {
            self.push(segments, false, first.ident.span());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast Macro) {
        visit::visit_macro(self, item);
        self.push_tokens(item.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        visit::visit_attribute(self, attribute);
        if let syn::Meta::List(list) = &attribute.meta {
            self.push_tokens(list.tokens.clone());
        }
    }
}
