// Sends mail by nodemailer, as its input (JSON) says: `options` for the transport,
// `messages`, each with the file that keeps the octets that nodemailer
// made of it. Prints what became of each, as a line of JSON.
"use strict";

const fs = require("fs");
const { PassThrough } = require("stream");
const nodemailer = require("nodemailer");

const { options, messages } = JSON.parse(fs.readFileSync(0, "utf8"));
const transport = nodemailer.createTransport(options);

// Keeps what is sent of each message that names a file.
transport.use("stream", (mail, done) => {
  const { keep } = mail.data;
  if (keep) {
    mail.message.processFunc((input) => {
      const output = new PassThrough();
      const chunks = [];
      input.on("data", (chunk) => chunks.push(chunk));
      input.on("end", () => fs.writeFileSync(keep, Buffer.concat(chunks)));
      input.on("error", (error) => output.destroy(error));
      return input.pipe(output);
    });
  }
  done();
});

// Octets are written as {"base64": "..."}.
function octets(value) {
  if (value && typeof value.base64 === "string") {
    return Buffer.from(value.base64, "base64");
  }
  return value;
}

function prepared(message) {
  const attachments = (message.attachments || []).map((attachment) => {
    return { ...attachment, content: octets(attachment.content) };
  });
  return { ...message, raw: octets(message.raw), attachments };
}

async function send(message) {
  try {
    const { accepted, rejected, response } = await transport.sendMail(prepared(message));
    return { accepted, rejected, response };
  } catch (error) {
    return { error: error.code, response: error.response || error.message };
  }
}

Promise.all(messages.map(send)).then((results) => {
  results.forEach((result) => console.log(JSON.stringify(result)));
  transport.close();
});
