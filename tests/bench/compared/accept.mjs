// Makes the calls to AWS that accepting a push makes, with the SDK for JavaScript: what the benchmark compares a start
// with. It is bundled into one file, and asks Lambda's Runtime API for events by itself. Calls that need not wait for each
// other are made together. It checks nothing of what it is sent.

import { createHash } from "node:crypto";

import {
  BatchGetItemCommand,
  DynamoDBClient,
  GetItemCommand,
  QueryCommand,
  TransactWriteItemsCommand,
  UpdateItemCommand,
} from "@aws-sdk/client-dynamodb";
import { PutObjectCommand, S3Client } from "@aws-sdk/client-s3";
import { SendMessageBatchCommand, SQSClient } from "@aws-sdk/client-sqs";

const { AWS_LAMBDA_RUNTIME_API: api, BUCKET, QUEUE_URL_PREFIX, TABLE } = process.env;
const QUEUES = ["webhook", "slack-webhook", "discord-webhook"];

const dynamodb = new DynamoDBClient({});
const s3 = new S3Client({ forcePathStyle: true });
// The queues of the benchmark answer without a message's MD5.
const sqs = new SQSClient({ md5: false });

const key = (partition) => ({ pk: { S: partition }, sk: { S: "row" } });

async function accept(event) {
  const envelope = JSON.parse(event.body);
  const statement = JSON.parse(Buffer.from(envelope.payload, "base64").toString());
  const hash = createHash("sha256").update(event.body).digest();
  const digest = hash.toString("hex");
  await dynamodb.send(new GetItemCommand({ TableName: TABLE, Key: key("compared") }));
  const keys = ["attestation", "plan", "workflow", "day"].map((name) => key(`compared/${name}/${digest}`));
  const query = (selector) =>
    dynamodb.send(
      new QueryCommand({
        TableName: TABLE,
        ConsistentRead: true,
        KeyConditionExpression: "pk = :pk",
        ExpressionAttributeValues: { ":pk": { S: `compared/workflow/${selector}` } },
      }),
    );
  await Promise.all([
    dynamodb.send(new BatchGetItemCommand({ RequestItems: { [TABLE]: { Keys: keys, ConsistentRead: true } } })),
    ...["project/name", "project/*", "*"].map(query),
  ]);
  await s3.send(
    new PutObjectCommand({
      Bucket: BUCKET,
      Key: `compared/sha256/${digest}`,
      Body: event.body,
      ChecksumSHA256: hash.toString("base64"),
    }),
  );
  const text = { S: JSON.stringify(statement.predicateType) + "-".repeat(600) };
  const writes = ["attestation", "received", "plan", "subject", ...QUEUES].map((row) => ({
    Put: {
      TableName: TABLE,
      Item: { ...key(`compared/${row}/${digest}`), etag: { S: digest }, row: text },
      ConditionExpression: "attribute_not_exists(pk) OR expires_at < :now",
      ExpressionAttributeValues: { ":now": { N: "0" } },
    },
  }));
  await dynamodb.send(new TransactWriteItemsCommand({ TransactItems: writes }));
  const message = JSON.stringify({ delivery: digest, organization: "compared", attempt: 1 });
  await Promise.all([
    ...QUEUES.map((queue) =>
      sqs.send(
        new SendMessageBatchCommand({
          QueueUrl: QUEUE_URL_PREFIX + queue,
          Entries: [{ Id: "0", MessageBody: message }],
        }),
      ),
    ),
    dynamodb.send(
      new UpdateItemCommand({
        TableName: TABLE,
        Key: key("compared/day"),
        UpdateExpression: "SET #expires = :expires ADD #0 :0, #1 :1",
        ExpressionAttributeNames: { "#expires": "expires_at", "#0": "attestations", "#1": "bytes" },
        ExpressionAttributeValues: {
          ":expires": { N: "4102444800" },
          ":0": { N: "1" },
          ":1": { N: String(event.body.length) },
        },
      }),
    ),
  ]);
  return { statusCode: 202, body: JSON.stringify({ attestation: `sha256:${digest}` }) };
}

for (;;) {
  const response = await fetch(`http://${api}/2018-06-01/runtime/invocation/next`);
  const invocation = response.headers.get("lambda-runtime-aws-request-id");
  const body = JSON.stringify(await accept(await response.json()));
  const answer = await fetch(`http://${api}/2018-06-01/runtime/invocation/${invocation}/response`, {
    method: "POST",
    body,
  });
  await answer.arrayBuffer();
}
