//! The imports and definitions of a source file. Parses it like the compiler; unit tests (`#[cfg(test)]`) do not count.

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, File, ImplItem, Item, ItemMod, ItemUse, Macro, Path, UseTree, Visibility};

/// A path, by its segments.
pub type Segments = Vec<String>;

/// A module in the source: a file, or a `mod … { … }` inside one.
#[derive(Default)]
pub struct Source {
    /// Names that are defined here.
    pub items: Vec<String>,
    /// Modules in files of their own.
    pub children: Vec<String>,
    /// Modules inside this one.
    pub inline: Vec<(String, Source)>,
    /// Names that `use` introduces, and their full paths.
    pub uses: Vec<(String, Segments)>,
    /// The paths of `use …::*`.
    pub globs: Vec<Segments>,
    /// Other paths of more than one segment.
    pub paths: Vec<Segments>,
    /// Macros that belong to the whole crate, wherever they are defined.
    pub exported_macros: Vec<String>,
}

impl Source {
    pub fn parse(text: &str) -> syn::Result<Source> {
        let File { items, .. } = syn::parse_file(text)?;
        let mut source = Source::default();
        items.iter().for_each(|item| source.add(item));
        Ok(source)
    }

    fn add(&mut self, item: &Item) {
        if attributes(item).iter().any(is_cfg_test) {
            return;
        }
        match item {
            Item::Mod(ItemMod { ident, content, .. }) => match content {
                None => self.children.push(ident.to_string()),
                Some((_, items)) => {
                    let mut inner = Source::default();
                    items.iter().for_each(|item| inner.add(item));
                    self.inline.push((ident.to_string(), inner));
                }
            },
            Item::Macro(item) => {
                let names = item.ident.iter().map(ToString::to_string);
                if item.attrs.iter().any(|attribute| attribute.path().is_ident("macro_export")) {
                    self.exported_macros.extend(names);
                } else {
                    self.items.extend(names);
                }
                self.items.extend(defined_in(item.mac.tokens.clone()));
            }
            _ => self.items.extend(name(item)),
        }
        self.visit_item(item);
    }

    fn add_use(&mut self, tree: &UseTree, prefix: &[String]) {
        let with = |name: String| [prefix, &[name]].concat();
        match tree {
            UseTree::Path(path) => self.add_use(&path.tree, &with(path.ident.to_string())),
            UseTree::Name(name) if name.ident == "self" => {
                self.uses.extend(prefix.last().map(|last| (last.clone(), prefix.to_vec())));
            }
            UseTree::Name(name) => self.uses.push((name.ident.to_string(), with(name.ident.to_string()))),
            UseTree::Rename(rename) => self.uses.push((rename.rename.to_string(), with(rename.ident.to_string()))),
            UseTree::Glob(_) => self.globs.push(prefix.to_vec()),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_use(tree, prefix)),
        }
    }

    /// Paths in the arguments of a macro, which are not parsed.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let mut path = Segments::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.add_path(std::mem::take(&mut path));
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    self.add_path(std::mem::take(&mut path));
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.add_tokens(group.stream());
                    }
                }
            }
        }
        self.add_path(path);
    }

    fn add_path(&mut self, path: Segments) {
        if path.len() > 1 {
            self.paths.push(path);
        }
    }
}

impl<'ast> Visit<'ast> for Source {
    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.add_use(&item.tree, &[]);
    }

    fn visit_path(&mut self, path: &'ast Path) {
        self.add_path(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast Macro) {
        self.visit_path(&item.path);
        self.add_tokens(item.tokens.clone());
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let attributes = match item {
            ImplItem::Fn(item) => &item.attrs[..],
            ImplItem::Const(item) => &item.attrs[..],
            _ => &[],
        };
        if !attributes.iter().any(is_cfg_test) {
            visit::visit_impl_item(self, item);
        }
    }

    /// [`Source::add`] has visited its items.
    fn visit_item_mod(&mut self, _: &'ast ItemMod) {}

    fn visit_attribute(&mut self, _: &'ast Attribute) {}

    fn visit_visibility(&mut self, _: &'ast Visibility) {}
}

/// The items that a macro like `bitflags!` defines, as far as they are literal.
fn defined_in(tokens: TokenStream) -> Vec<String> {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let definitions = tokens.windows(2).filter_map(|two| match two {
        [TokenTree::Ident(keyword), TokenTree::Ident(name)] if keyword == "struct" || keyword == "enum" => Some(name),
        _ => None,
    });
    definitions.map(ToString::to_string).collect()
}

fn is_cfg_test(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg") && attribute.parse_args::<Path>().is_ok_and(|path| path.is_ident("test"))
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn name(item: &Item) -> Option<String> {
    let name = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(name.to_string())
}
