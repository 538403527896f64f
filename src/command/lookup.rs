//! The row of a client's last request: most requests have the same command as the one before.

use std::ops::Range;

use crate::resp::Prefix;

use super::row::Row;
use super::table::Table;

/// The row that was found last.
#[derive(Debug, Default)]
pub struct Lookup {
    /// The last request up to the end of its name. (The scanner also remembers the beginning of a request, but not its row.)
    prefix: Prefix,
    table: u64,
    position: usize,
}

impl Lookup {
    /// Like [`Table::get`], for the name of a request.
    #[inline]
    pub fn get<'a>(&mut self, table: &'a Table, request: &[u8], name: &Range<usize>) -> Option<&'a Row> {
        if !(self.prefix.begins(request) && self.table == table.number) {
            let position = table.index.find(&request[name.clone()])?;
            *self = Lookup { prefix: Prefix::of(&request[..name.end]), table: table.number, position };
        }
        table.rows.get(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::super::cacheable::Ends;
    use super::{Lookup, Table};

    #[test]
    fn a_lookup_finds_what_the_table_finds() {
        let tables =
            [Table::builtin(), Table::build(Table::builtin_entries().split_off(100), Ends::UNKNOWN), Table::builtin()];
        let requests: [(&[u8], usize); 5] = [
            (b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", 3),
            (b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n", 3),
            (b"*2\r\n$7\r\nhgetall\r\n$1\r\nk\r\n", 7),
            (b"*2\r\n$4\r\nNONE\r\n$1\r\nk\r\n", 4),
            (b"*2\r\n$17\r\nGEORADIUSBYMEMBER\r\n$1\r\nk\r\n", 17),
        ];
        let mut lookup = Lookup::default();
        let mut found = [0; 3];
        for round in 0..1000 {
            // Consecutive calls differ in the request, in the table, in both, or not at all.
            let at = (round / 2) % 3;
            let (request, length) = requests[(round / 3) % 5];
            let start = 6 + length.to_string().len() + 1;
            let name = start..start + length;
            let row = lookup.get(&tables[at], request, &name);
            assert_eq!(row.map(|row| &row.name), tables[at].get(&request[name]).map(|row| &row.name));
            found[at] += usize::from(row.is_some());
        }
        assert!(found[0] > found[1] && found[1] > 0 && found[2] > 0);
    }
}
