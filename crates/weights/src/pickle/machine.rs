//! The stack machine: it builds plain values, and calls nothing.

use std::collections::BTreeMap;

use super::limits::{MAX_ITEMS, MAX_MEMO, MAX_OBJECTS, MAX_PICKLE_BYTES, MAX_STACK};
use super::opcode;
use super::refusal::{CONVERT, Refusal, quoted};
use super::value::{Dict, Object, Value};

/// What a pickle built.
pub(super) struct Pickled<'a> {
    pub objects: Vec<Object<'a>>,
    pub top: Value<'a>,
}

impl<'a> Pickled<'a> {
    /// The compound value behind a value, if it is one.
    pub fn object(&self, value: Value<'a>) -> Option<&Object<'a>> {
        object(&self.objects, value)
    }
}

/// Runs a pickle of protocol 2 to 5.
pub(super) fn run(code: &[u8]) -> Result<Pickled<'_>, Refusal> {
    if code.len() > MAX_PICKLE_BYTES {
        return Err(Refusal::new(
            format!("a data.pkl of {} bytes", code.len()),
            format!("at most {MAX_PICKLE_BYTES}"),
        ));
    }
    match code {
        [opcode::PROTO, 2..=5, ..] => {}
        _ => return Err(Refusal::new("a data.pkl that does not say its protocol", "protocol 2 to 5")),
    }
    let mut machine = Machine {
        code,
        at: 2,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: BTreeMap::new(),
        objects: Vec::new(),
        n_items: 0,
    };
    loop {
        let start = machine.at;
        if let Some(top) = machine.step().map_err(|refusal| refusal.at_byte(start))? {
            return Ok(Pickled { objects: machine.objects, top });
        }
    }
}

pub(super) struct Machine<'a> {
    code: &'a [u8],
    at: usize,
    stack: Vec<Value<'a>>,
    /// Heights of the stack at each open mark.
    marks: Vec<usize>,
    memo: BTreeMap<u32, Value<'a>>,
    objects: Vec<Object<'a>>,
    n_items: usize,
}

impl<'a> Machine<'a> {
    /// Does one instruction; the last one answers with the value built.
    fn step(&mut self) -> Result<Option<Value<'a>>, Refusal> {
        let [code] = self.take()?;
        match code {
            opcode::STOP => return self.stop().map(Some),
            opcode::FRAME => self.frame()?,
            opcode::MARK => self.mark()?,
            opcode::NONE => self.push(Value::None)?,
            opcode::NEWTRUE | opcode::NEWFALSE => self.push(Value::Bool)?,
            opcode::BININT => {
                let number = i32::from_le_bytes(self.take()?);
                self.push(Value::Int(number.into()))?;
            }
            opcode::BININT1 => {
                let [number] = self.take()?;
                self.push(Value::Int(number.into()))?;
            }
            opcode::BININT2 => {
                let number = u16::from_le_bytes(self.take()?);
                self.push(Value::Int(number.into()))?;
            }
            opcode::LONG1 => {
                let [len] = self.take()?;
                let number = integer(self.bytes(len.into())?);
                self.push(number)?;
            }
            opcode::BINFLOAT => {
                self.bytes(8)?;
                self.push(Value::Number)?;
            }
            opcode::BINUNICODE => {
                let len = u32::from_le_bytes(self.take()?);
                self.text(len as usize)?;
            }
            opcode::SHORT_BINUNICODE => {
                let [len] = self.take()?;
                self.text(len.into())?;
            }
            opcode::EMPTY_DICT => self.build(Object::Dict(Dict { flat: Vec::new(), ordered: false }))?,
            opcode::EMPTY_LIST => self.build(Object::List(Vec::new()))?,
            opcode::EMPTY_TUPLE => self.tuple(0)?,
            opcode::TUPLE1 => self.tuple(1)?,
            opcode::TUPLE2 => self.tuple(2)?,
            opcode::TUPLE3 => self.tuple(3)?,
            opcode::TUPLE => {
                let n = self.close_mark()?;
                self.tuple(n)?;
            }
            opcode::BINPUT => {
                let [key] = self.take()?;
                self.remember(key.into())?;
            }
            opcode::LONG_BINPUT => {
                let key = u32::from_le_bytes(self.take()?);
                self.remember(key)?;
            }
            // The limit on the memo keeps its length within 32 bits.
            opcode::MEMOIZE => self.remember(self.memo.len() as u32)?,
            opcode::BINGET => {
                let [key] = self.take()?;
                self.recall(key.into())?;
            }
            opcode::LONG_BINGET => {
                let key = u32::from_le_bytes(self.take()?);
                self.recall(key)?;
            }
            opcode::GLOBAL => {
                let (module, name) = (self.line()?, self.line()?);
                self.build(Object::Global { module, name })?;
            }
            opcode::STACK_GLOBAL => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(module), Value::Text(name)) = (module, name) else {
                    return Err(Refusal::new("a global whose name is not text", "text"));
                };
                self.build(Object::Global { module, name })?;
            }
            opcode::REDUCE => {
                let (arguments, callee) = (self.pop()?, self.pop()?);
                let result = self.call(callee, arguments)?;
                self.push(result)?;
            }
            opcode::NEWOBJ => {
                let (_, class) = (self.pop()?, self.pop()?);
                return Err(self.not_called(class));
            }
            opcode::BUILD => self.set_attributes()?,
            opcode::BINPERSID => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.build(Object::Storage(storage))?;
            }
            opcode::SETITEM => self.extend_dict(2)?,
            opcode::SETITEMS => {
                let n = self.close_mark()?;
                self.extend_dict(n)?;
            }
            opcode::APPEND => self.extend_list(1)?,
            opcode::APPENDS => {
                let n = self.close_mark()?;
                self.extend_list(n)?;
            }
            opcode::PROTO => {
                return Err(Refusal::new("a second opcode PROTO", "one, at the start"));
            }
            other => {
                return Err(Refusal::new(
                    format!("opcode {other:#04x} {}", opcode::name(other)),
                    format!("the opcodes of a state dict; {CONVERT}"),
                ));
            }
        }
        Ok(None)
    }

    fn stop(&mut self) -> Result<Value<'a>, Refusal> {
        let top = self.pop()?;
        if !self.stack.is_empty() || !self.marks.is_empty() || self.at != self.code.len() {
            return Err(Refusal::new("an end with values or bytes left over", "one value, then the end"));
        }
        Ok(top)
    }

    /// A frame tells a reader how much to fetch at once; everything is at hand here.
    fn frame(&mut self) -> Result<(), Refusal> {
        let len = u64::from_le_bytes(self.take()?);
        if len > (self.code.len() - self.at) as u64 {
            return Err(cut_short());
        }
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let field = self.code[self.at..].first_chunk().ok_or_else(cut_short)?;
        self.at += N;
        Ok(*field)
    }

    fn bytes(&mut self, n: usize) -> Result<&'a [u8], Refusal> {
        let bytes = self.code[self.at..].get(..n).ok_or_else(cut_short)?;
        self.at += n;
        Ok(bytes)
    }

    fn text(&mut self, len: usize) -> Result<(), Refusal> {
        let text = utf8(self.bytes(len)?)?;
        self.push(Value::Text(text))
    }

    fn line(&mut self) -> Result<&'a str, Refusal> {
        let rest = &self.code[self.at..];
        let len = rest.iter().position(|&byte| byte == b'\n').ok_or_else(cut_short)?;
        self.at += len + 1;
        utf8(&rest[..len])
    }

    pub(super) fn push(&mut self, value: Value<'a>) -> Result<(), Refusal> {
        within(self.stack.len(), MAX_STACK, "values on the stack")?;
        self.stack.push(value);
        Ok(())
    }

    /// Takes the uppermost value above the last mark.
    pub(super) fn pop(&mut self) -> Result<Value<'a>, Refusal> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(empty_stack());
        }
        self.stack.pop().ok_or_else(empty_stack)
    }

    fn mark(&mut self) -> Result<(), Refusal> {
        within(self.marks.len(), MAX_STACK, "open marks")?;
        self.marks.push(self.stack.len());
        Ok(())
    }

    /// Forgets the last mark and tells how many values are above it.
    fn close_mark(&mut self) -> Result<usize, Refusal> {
        let floor = self.marks.pop().ok_or_else(|| Refusal::new("no mark", "a mark before the items"))?;
        Ok(self.stack.len() - floor)
    }

    /// Adds a compound value.
    pub(super) fn create(&mut self, object: Object<'a>) -> Result<Value<'a>, Refusal> {
        within(self.objects.len(), MAX_OBJECTS, "compound values")?;
        self.objects.push(object);
        // The limit keeps the number within 32 bits.
        Ok(Value::Object((self.objects.len() - 1) as u32))
    }

    fn build(&mut self, object: Object<'a>) -> Result<(), Refusal> {
        let value = self.create(object)?;
        self.push(value)
    }

    /// Takes the `n` uppermost values above the last mark, to become items of a container.
    fn items(&mut self, n: usize) -> Result<Vec<Value<'a>>, Refusal> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let from = self.stack.len().checked_sub(n).filter(|&from| from >= floor).ok_or_else(empty_stack)?;
        self.n_items += n;
        within(self.n_items, MAX_ITEMS + 1, "items in containers")?;
        Ok(self.stack.drain(from..).collect())
    }

    fn tuple(&mut self, n: usize) -> Result<(), Refusal> {
        let items = self.items(n)?;
        self.build(Object::Tuple(items))
    }

    fn extend_dict(&mut self, n: usize) -> Result<(), Refusal> {
        let items = self.items(n)?;
        match self.container()? {
            Object::Dict(dict) if n.is_multiple_of(2) => dict.flat.extend(items),
            Object::Dict(_) => return Err(Refusal::new("a key without a value", "keys and values in turn")),
            _ => return Err(Refusal::new("entries set in something else than a dict", "a dict")),
        }
        Ok(())
    }

    fn extend_list(&mut self, n: usize) -> Result<(), Refusal> {
        let items = self.items(n)?;
        match self.container()? {
            Object::List(list) => list.extend(items),
            _ => return Err(Refusal::new("items added to something else than a list", "a list")),
        }
        Ok(())
    }

    /// The object on top of the stack, which stays there.
    pub(super) fn container(&mut self) -> Result<&mut Object<'a>, Refusal> {
        let top = self.pop()?;
        self.stack.push(top);
        let object = match top {
            Value::Object(at) => self.objects.get_mut(at as usize),
            _ => None,
        };
        object.ok_or_else(|| Refusal::new("a plain value where a container should be", "a dict or a list"))
    }

    fn remember(&mut self, key: u32) -> Result<(), Refusal> {
        within(self.memo.len(), MAX_MEMO, "remembered values")?;
        let top = self.pop()?;
        self.stack.push(top);
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), Refusal> {
        let value = self.memo.get(&key).copied();
        self.push(
            value.ok_or_else(|| Refusal::new(format!("a recall of value {key}"), "one remembered before"))?,
        )
    }

    pub(super) fn object(&self, value: Value<'a>) -> Option<&Object<'a>> {
        object(&self.objects, value)
    }

    /// The refusal to call a function or make an instance of a class.
    pub(super) fn not_called(&self, callee: Value<'a>) -> Refusal {
        let what = match self.object(callee) {
            Some(Object::Global { module, name }) => format!("`{}.{}`", quoted(module), quoted(name)),
            _ => "something that is not a function".into(),
        };
        let wanted = format!("weights alone, nothing of the file has been run; {CONVERT}");
        Refusal::new(format!("a call of {what}"), wanted)
    }
}

fn object<'o, 'a>(objects: &'o [Object<'a>], value: Value<'a>) -> Option<&'o Object<'a>> {
    match value {
        Value::Object(at) => objects.get(at as usize),
        _ => None,
    }
}

fn within(n: usize, limit: usize, what: &str) -> Result<(), Refusal> {
    if n < limit {
        return Ok(());
    }
    Err(Refusal::new(format!("more {what} than weights need"), format!("at most {limit}")))
}

fn utf8(bytes: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(bytes).map_err(|_| Refusal::new("text that is not UTF-8", "text in UTF-8"))
}

fn cut_short() -> Refusal {
    Refusal::new("an instruction cut short", "the whole pickle; fetch the file again")
}

fn empty_stack() -> Refusal {
    Refusal::new("an instruction without its operands", "the operands on the stack")
}

/// A little-endian number in two's complement.
fn integer<'a>(bytes: &[u8]) -> Value<'a> {
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut whole = [if negative { 0xff } else { 0 }; 8];
    match whole.get_mut(..bytes.len()) {
        Some(part) => part.copy_from_slice(bytes),
        None => return Value::Number,
    }
    Value::Int(i64::from_le_bytes(whole))
}
