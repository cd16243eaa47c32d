"""Objects with SSE-KMS at an object store, under the key rgw-key. usage: with_s3.py URL BUCKET [again]"""

import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

url, bucket, again = sys.argv[1], sys.argv[2], len(sys.argv) > 3
s3 = boto3.client(
    "s3",
    endpoint_url=url,
    region_name="us-east-1",
    aws_access_key_id="access",
    aws_secret_access_key="secret",
    config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required", retries={"max_attempts": 3}),
)
key = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "rgw-key"}
part = b"p" * (5 << 20)
if not again:
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="whole", Body=b"whole object", **key)
    upload = s3.create_multipart_upload(Bucket=bucket, Key="parts", **key)["UploadId"]
    parts = []
    for number in (1, 2):
        named = {"Bucket": bucket, "Key": "parts", "PartNumber": number, "UploadId": upload}
        parts.append({"PartNumber": number, "ETag": s3.upload_part(Body=part, **named)["ETag"]})
    s3.complete_multipart_upload(Bucket=bucket, Key="parts", UploadId=upload, MultipartUpload={"Parts": parts})
    try:
        s3.put_object(Bucket=bucket, Key="denied", Body=b"x", ServerSideEncryption="aws:kms", SSEKMSKeyId="other-key")
        raise AssertionError("a key that the gateway may not use was used")
    except ClientError as error:
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] in (400, 403), error
assert s3.get_object(Bucket=bucket, Key="whole")["Body"].read() == b"whole object"
assert s3.get_object(Bucket=bucket, Key="whole", Range="bytes=6-11")["Body"].read() == b"object"
assert s3.head_object(Bucket=bucket, Key="whole")["ServerSideEncryption"] == "aws:kms"
assert s3.get_object(Bucket=bucket, Key="parts")["Body"].read() == part + part
s3.put_object(Bucket=bucket, Key="later", Body=b"later", **key)
assert s3.get_object(Bucket=bucket, Key="later")["Body"].read() == b"later"
