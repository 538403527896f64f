//! The grammar of every command, as the running server gives it: `COMMAND` for names and arities, `COMMAND DOCS` for
//! arguments (<https://redis.io/docs/latest/commands/command-docs/>).

use super::common::Client;
use super::frame::Frame;

/// A command, or a subcommand as `container|sub`.
#[derive(Debug)]
pub struct Doc {
    /// Lower case.
    pub name: String,
    /// `string`, `list`, …; of a subcommand: its container's.
    pub group: String,
    /// Words at least, name included; negative: there may be more.
    pub arity: i64,
    /// What follows the name. Empty for a container.
    pub arguments: Vec<Argument>,
}

/// One argument.
#[derive(Debug, Default)]
pub struct Argument {
    /// What it is called.
    pub name: String,
    /// `key`, `string`, `integer`, `double`, `pattern`, `unix-time`, `pure-token`, `oneof` or `block`.
    pub kind: String,
    /// The word that stands before it, or that it is.
    pub token: Option<String>,
    /// It may be left out.
    pub optional: bool,
    /// It may be given more than once.
    pub multiple: bool,
    /// The token with it, each time.
    pub multiple_token: bool,
    /// Those of `oneof` and `block`.
    pub arguments: Vec<Argument>,
}

/// Everything that the server has; containers are not among them.
pub fn of(client: &mut Client) -> Vec<Doc> {
    let mut docs = Vec::new();
    let table = Frame::of(&client.cmd("COMMAND")).expect("RESP");
    let said = Frame::of(&client.cmd("COMMAND DOCS")).expect("RESP");
    let said = fields(&said);
    for row in parts(&table) {
        let row = parts(row);
        let name = text(&row[0]).to_ascii_lowercase();
        let doc = said.iter().find(|(key, _)| *key == name).map(|(_, doc)| fields(doc)).unwrap_or_default();
        let get = |field: &str| doc.iter().find(|(key, _)| key == field).map(|(_, value)| *value);
        let group = get("group").map(text).unwrap_or_default();
        let subcommands = row.get(9).map(parts).unwrap_or_default();
        if subcommands.is_empty() {
            let arguments = get("arguments").map(arguments).unwrap_or_default();
            docs.push(Doc { name, group, arity: row[1].integer().expect("an arity"), arguments });
            continue;
        }
        let said = get("subcommands").map(fields).unwrap_or_default();
        for sub in subcommands {
            let sub = parts(sub);
            let name = text(&sub[0]).to_ascii_lowercase();
            let doc = said.iter().find(|(key, _)| *key == name).map(|(_, doc)| fields(doc)).unwrap_or_default();
            let arguments = doc.iter().find(|(key, _)| key == "arguments").map(|(_, value)| arguments(value));
            let arity = sub[1].integer().expect("an arity");
            docs.push(Doc { name, group: group.clone(), arity, arguments: arguments.unwrap_or_default() });
        }
    }
    // The server's own order is that of a hash table with a seed, and would make each run another.
    docs.sort_by(|a, b| a.name.cmp(&b.name));
    docs
}

fn arguments(frame: &Frame) -> Vec<Argument> {
    parts(frame).iter().map(argument).collect()
}

fn argument(frame: &Frame) -> Argument {
    let mut argument = Argument::default();
    for (field, value) in fields(frame) {
        match field.as_str() {
            "name" => argument.name = text(value),
            "type" => argument.kind = text(value),
            "token" => argument.token = Some(text(value)),
            "arguments" => argument.arguments = arguments(value),
            "flags" => {
                let has = |flag: &[u8]| parts(value).iter().any(|one| one.text() == Some(flag));
                argument.optional = has(b"optional");
                argument.multiple = has(b"multiple") || has(b"multiple_token");
                argument.multiple_token = has(b"multiple_token");
            }
            _ => {}
        }
    }
    argument
}

fn parts(frame: &Frame) -> &[Frame] {
    match frame {
        Frame::Many(_, Some(parts)) => parts,
        _ => &[],
    }
}

fn fields(frame: &Frame) -> Vec<(String, &Frame)> {
    parts(frame).chunks_exact(2).map(|pair| (text(&pair[0]), &pair[1])).collect()
}

fn text(frame: &Frame) -> String {
    String::from_utf8_lossy(frame.text().unwrap_or_default()).into_owned()
}
