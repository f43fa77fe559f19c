// A message centre made with npm `smpp`: says its port, takes every message, sends receipts, and counts.
//
// When standard input ends it prints what it got as one line of JSON:
// numbers, complete messages, numbers with more than one, parts, and every number's text as this package decodes it.

import smpp from 'smpp';

const numbers = new Map();
const unfinished = new Map();
let ids = 0;
let parts = 0;

const server = smpp.createServer((session) => {
  session.on('error', () => session.destroy());
  session.on('bind_transceiver', (pdu) => session.send(pdu.response({ system_id: 'npm' })));
  session.on('enquire_link', (pdu) => session.send(pdu.response()));
  session.on('unbind', (pdu) => session.send(pdu.response(), () => session.close()));
  session.on('submit_sm', (pdu) => {
    const id = String(++ids);
    parts += 1;
    take(pdu.destination_addr, pdu.short_message);
    session.send(pdu.response({ message_id: id }));
    if (pdu.registered_delivery & 1) {
      // Some come at once, some after a while.
      setTimeout(() => receipt(session, pdu, id), ids % 7 * 30);
    }
  });
});

function take(number, { message, udh = [] }) {
  // 3GPP TS 23.040, 9.2.3.24.1 and 9.2.3.24.8: parts of one message with a reference of one octet or two.
  const header = udh.find((element) => element[0] === 0x00 || element[0] === 0x08);
  if (!header) return complete(number, message);
  const [total, part] = header.slice(-2);
  const key = `${number} ${header.slice(0, -2).toString('hex')} ${total}`;
  const texts = unfinished.get(key) ?? new Map();
  texts.set(part, message);
  unfinished.set(key, texts);
  if (texts.size < total) return;
  unfinished.delete(key);
  complete(number, Array.from({ length: total }, (_, at) => texts.get(at + 1)).join(''));
}

function complete(number, text) {
  const texts = numbers.get(number) ?? [];
  texts.push(text);
  numbers.set(number, texts);
}

function receipt(session, pdu, id) {
  // SMPP 3.4, appendix B.
  const date = new Date().toISOString().replace(/\D/g, '').slice(2, 12);
  session.deliver_sm({
    source_addr: pdu.destination_addr,
    destination_addr: pdu.source_addr,
    esm_class: 4,
    short_message: `id:${id} sub:001 dlvrd:001 submit date:${date} done date:${date} stat:DELIVRD err:000 text:`,
    receipted_message_id: id,
    message_state: 2,
  });
}

server.listen(0, '127.0.0.1', () => console.log(server.address().port));

process.stdin.resume();
process.stdin.on('end', () => {
  const texts = [...numbers.values()];
  const summary = JSON.stringify({
    numbers: numbers.size,
    messages: texts.reduce((sum, all) => sum + all.length, 0),
    repeated: texts.filter((all) => all.length > 1).length,
    unfinished: unfinished.size,
    parts,
    texts: Object.fromEntries([...numbers].map(([number, all]) => [number, all[0]])),
  });
  // A pipe takes a long line in pieces: the end waits for the last.
  process.stdout.write(`${summary}\n`, () => process.exit(0));
});
